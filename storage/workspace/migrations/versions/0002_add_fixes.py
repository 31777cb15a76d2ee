"""add fixes: submissions of reviewers that take the place of an annotator's."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply the change."""
    on_leases = "submission that a reviewer fixes; NULL: a task that was claimed"
    op.add_column("leases", sa.Column("fixes", sa.BigInteger(), nullable=True, comment=on_leases))
    on_submissions = "submission that this one takes the place of; NULL: an annotator's own work"
    op.add_column("submissions", sa.Column("fixes", sa.BigInteger(), nullable=True, comment=on_submissions))
