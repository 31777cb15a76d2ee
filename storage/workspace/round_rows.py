"""Rows of the table of rounds: read one, lock it, and check the state that it is in."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from storage.errors import InvalidInput, NotFound
from storage.workspace.records import Round, RoundState
from storage.workspace.schema import ROUNDS


def locked_round(connection: Connection, round_id: str, states: Iterable[RoundState], *, shared: bool = False) -> Round:
    """Read a round and keep its state from changing until the transaction ends.

    Args:
        connection: The transaction.
        round_id: The round.
        states: States that the round may be in.
        shared: Whether others may hold the same lock at the same time; without, one transaction waits for the other.

    Raises:
        NotFound: There is no such round.
        ValueError: The round is in none of the given states.
    """
    query = select(ROUNDS).where(ROUNDS.c.round_id == round_id).with_for_update(read=shared)
    row = connection.execute(query).mappings().one_or_none()
    found = _found(row, round_id)
    check_state(found, states)
    return found


def check_state(found: Round, states: Iterable[RoundState]) -> None:
    """Check the state of a round.

    Raises:
        InvalidInput: The round is in none of the given states.
    """
    if found.state not in states:
        raise InvalidInput(f"round {found.round_id} is {found.state}; expected {' or '.join(states)}")


def round_of(connection: Connection, round_id: str) -> Round:
    """Read a round.

    Raises:
        NotFound: There is no such round.
    """
    query = select(ROUNDS).where(ROUNDS.c.round_id == round_id)
    return _found(connection.execute(query).mappings().one_or_none(), round_id)


def _found(row: Mapping[Any, Any] | None, round_id: str) -> Round:
    if row is None:
        raise NotFound(f"round {round_id!r}: there is no such round; `gigamask round status` shows all")
    return round_from(row)


def round_from(row: Mapping[Any, Any]) -> Round:
    """Make a round of its row."""
    return Round(**{**row, "state": RoundState(row["state"])})
