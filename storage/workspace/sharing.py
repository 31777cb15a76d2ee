"""Rounds that ask about the same images, and whose closings therefore come one after the other."""

from collections.abc import Collection

from sqlalchemy import Connection, func, select

from storage.errors import Conflict
from storage.workspace.records import RoundState
from storage.workspace.schema import ROUNDS, TASKS

_CLOSING = 0x67696763  # any number of our own: the key of PostgreSQL's advisory lock


class OtherIsClosing(Conflict):
    """Refusal to begin closing a round while another one is being closed that has images of it.

    Attributes:
        other: Id of that round.
    """

    def __init__(self, round_id: str, other: str) -> None:
        super().__init__(f"round {round_id} has images of round {other}, which is being closed; finish that first")
        self.other = other


def rounds_sharing(connection: Connection, round_id: str, states: Collection[RoundState]) -> list[str]:
    """List the other rounds in some states that have an image of a round, in the order of their closing."""
    mine, theirs = TASKS.alias("mine"), TASKS.alias("theirs")
    own = select(mine.c.image_id).where(mine.c.round_id == round_id)
    sharing = select(theirs.c.round_id).where(theirs.c.image_id.in_(own), theirs.c.round_id != round_id)
    query = select(ROUNDS.c.round_id).where(ROUNDS.c.state.in_(states), ROUNDS.c.round_id.in_(sharing))
    return list(connection.execute(query.order_by(ROUNDS.c.closed_at, ROUNDS.c.round_id)).scalars())


def check_alone(connection: Connection, round_id: str) -> None:
    """Check that no round with the same images is being closed, and let none begin until the transaction ends.

    Raises:
        OtherIsClosing: One is being closed.
    """
    if connection.dialect.name == "postgresql":  # SQLite runs one writer at a time anyhow
        connection.execute(select(func.pg_advisory_xact_lock(_CLOSING)))
    for other in rounds_sharing(connection, round_id, (RoundState.CLOSING,)):
        raise OtherIsClosing(round_id, other)
