"""Withdrawals from closed rounds: whose work no longer counts, why, and by which plan the dataset follows.

They are in the settings of the round, in the order in which they were asked for.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, update

from storage.workspace.records import Round, RoundState
from storage.workspace.round_rows import locked_round
from storage.workspace.schema import ROUNDS
from storage.workspace.sharing import check_alone

WITHDRAWALS = "withdrawals"
"""Name of the setting of a round that lists its withdrawals."""


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """Withdrawal of an annotator's work from a closed round."""

    annotator: str
    reason: str
    plan_id: str | None
    """Id of the plan that changes the dataset; empty where nothing changes, None before that is known."""


def withdrawals_of(found: Round) -> list[Withdrawal]:
    """List the withdrawals from a round, oldest first."""
    return [Withdrawal(**each) for each in found.settings.get(WITHDRAWALS, ())]


def begin(connection: Connection, round_id: str, annotator: str, reason: str) -> bool:
    """Have a closed round closed once more, without an annotator's work; return whether that is new.

    Raises:
        NotFound: There is no such round.
        OtherIsClosing: A round that has images of this one is being closed.
        ValueError: The round is not closed.
    """
    check_alone(connection, round_id)
    found = locked_round(connection, round_id, (RoundState.CLOSED, RoundState.CLOSING))
    known = withdrawals_of(found)
    if annotator in {each.annotator for each in known}:
        return False
    locked_round(connection, round_id, (RoundState.CLOSED,))
    new = Withdrawal(annotator=annotator, reason=reason, plan_id=None)
    _store(connection, found, [*known, new], state=RoundState.CLOSING)
    return True


def set_plan(connection: Connection, round_id: str, annotator: str, store: Callable[[], str]) -> str:
    """Give a withdrawal its plan, unless it has one; return the id of the plan that it has then."""
    found = locked_round(connection, round_id, (RoundState.CLOSING, RoundState.CLOSED))
    known = withdrawals_of(found)
    number = [each.annotator for each in known].index(annotator)
    plan_id = known[number].plan_id
    if plan_id is None:
        plan_id = store()
        known[number] = Withdrawal(annotator=annotator, reason=known[number].reason, plan_id=plan_id)
        _store(connection, found, known)
    return plan_id


def _store(connection: Connection, found: Round, withdrawals: list[Withdrawal], **values: Any) -> None:
    settings = {**found.settings, WITHDRAWALS: [asdict(each) for each in withdrawals]}
    changed = update(ROUNDS).where(ROUNDS.c.round_id == found.round_id)
    connection.execute(changed.values(settings=settings, **values))
