"""The command `gigamask round close`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import check_dataset, workspace_place
from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri, WorkspacePlace
from flows.cli.rounds import RoundId
from flows.progress import log

if TYPE_CHECKING:
    from storage.workspace.workspace import Workspace


def round_close(
    round_id: RoundId,
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Close without work that is held or drafted, and do not ask.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take the masks of a round into the dataset and end the round. Closing again changes nothing.

    If answers are still wanted, a terminal is asked first. Without a terminal, a round with tasks that people hold or
    masks that they drafted and did not submit is refused unless --yes is given.
    """
    log(f"round close: {round_id} into {dataset}")
    place = workspace_place(dataset, workspace)
    check_dataset(dataset)
    from storage.workspace.workspace import Workspace

    with Workspace.open(place) as opened:
        discard = _is_sure_to_close(opened, round_id, yes=yes)
    from flows.assisted_manual import close_round
    from flows.cli.output import print_result

    print_result(close_round(dataset, place, round_id, discard_unfinished=discard), as_json)


def _is_sure_to_close(opened: "Workspace", round_id: str, *, yes: bool) -> bool:
    """Tell what closing a round leaves out, ask about it on a terminal, and return whether it is to be discarded.

    Raises:
        Exit: The person at the terminal does not want to close.
        ValueError: Nobody answered the round, or people are at work on it and nobody can be asked.
    """
    from stages.rounds.close import check_finished
    from storage.workspace.records import RoundState

    if opened.rounds.get(round_id).state not in (RoundState.OPEN, RoundState.PAUSED):
        return yes
    unfinished = opened.rounds.unfinished(round_id)
    may_ask = sys.stdin.isatty() and not yes
    check_finished(round_id, unfinished, discard_unfinished=yes or may_ask)
    if not unfinished.loses_work and not unfinished.free:
        return yes
    log(f"round close: this leaves out {unfinished}")
    if may_ask and not typer.confirm("Close it all the same?", err=True):
        log("nothing was changed")
        raise typer.Exit(1)
    return yes or may_ask
