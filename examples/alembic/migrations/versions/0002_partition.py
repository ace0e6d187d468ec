"""Makes visits_new and its partitions, empty; visits is not touched yet."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    # a superuser's business; no more than a NOTICE where it is there
    op.execute("CREATE EXTENSION IF NOT EXISTS migrate_ext")
    op.execute("SELECT migrate_ext.partition_by_hash('visits', 'site', 4)")


def downgrade():
    with op.get_context().autocommit_block():
        op.execute("CALL migrate_ext.cancel('visits')")
