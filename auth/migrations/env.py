"""Alembic's entry point: runs the steps on the connection that `auth.migrate` passes, inside its transaction."""

from alembic import context

from database.columns import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
