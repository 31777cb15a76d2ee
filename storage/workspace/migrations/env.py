"""Entry point that Alembic runs for each migration, on the connection that `migrate` hands over."""

from alembic import context

from storage.workspace.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
