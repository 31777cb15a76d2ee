"""add requests: ids that clients give to what is to be done once."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "requests",
        sa.Column("request_id", sa.Text(), nullable=False, comment="UUID that the client made"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("round_id", sa.Text(), nullable=False, comment="round that the request opened or extended"),
        sa.Column("content", sa.JSON(), nullable=False, comment="what the client asked for"),
        sa.Column("tasks", sa.Integer(), nullable=False, comment="images that the round got by the request"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("action IN ('open round', 'extend round')", name=op.f("ck_requests_action")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_requests_round_id")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_requests")),
    )
