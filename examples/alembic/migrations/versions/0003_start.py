"""Background workers begin to copy when this revision's transaction commits; nobody waits for them here."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.execute("SELECT migrate_ext.start('visits')")
    op.execute("SELECT migrate_ext.resume('visits')")  # after a way down


def downgrade():
    op.execute("SELECT migrate_ext.pause('visits', 'rolled back')")
