"""Alembic migrations of the workspace: `migrate` brings a database to the newest schema."""
