"""add firings: what schedules and triggers started."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "firings",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.CheckConstraint("state IN ('running', 'done', 'failed', 'lost')", name=op.f("ck_firings_state")),
        sa.PrimaryKeyConstraint("job", "key", name=op.f("pk_firings")),
    )
    one = sa.text("state = 'running'")
    op.create_index("uq_firings_running", "firings", ["job"], unique=True, sqlite_where=one, postgresql_where=one)
