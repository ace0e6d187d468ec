"""From here on visits is the partitioned table; visits_orig is kept up to date for the way down."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade():
    with op.get_context().autocommit_block():  # procedures wait between transactions of their own
        op.execute("CALL migrate_ext.wait_for('visits', 'live')")
        op.execute("CALL migrate_ext.finalize('visits')")


def downgrade():
    with op.get_context().autocommit_block():
        op.execute("CALL migrate_ext.undo('visits')")
