from alembic import context
from sqlalchemy import create_engine

import model


def include_object(object, name, type_, reflected, compare_to):
    """For revision --autogenerate: tables without a model (partitions, visits_new, visits_orig) are left alone."""
    return not (type_ == "table" and reflected and compare_to is None)


with create_engine(model.URL).connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=model.Base.metadata,
        include_object=include_object,
        # autocommit_block() commits what stands before it: without this, other revisions' work too
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
