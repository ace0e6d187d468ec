"""The end: visits_orig goes, and with it the way back."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CALL migrate_ext.complete('visits', drop_original => true)")


def downgrade():
    raise NotImplementedError("visits_orig is gone")
