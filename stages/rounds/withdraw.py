"""Take the masks of one annotator of one round back, before or after the round was closed."""

from dataclasses import dataclass

from storage.dataset import Dataset
from storage.errors import NotFound
from storage.workspace.records import RoundState
from storage.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class WithdrawnWork:
    """Result of withdrawing an annotator's work on a round."""

    round_id: str
    annotator: str
    submissions: int
    """Number of submissions that closing the round will leave out; 0 for a round that is closed."""
    masks: int
    """Number of masks that were withdrawn from the dataset; 0 for a round that is open."""


def withdraw_work(
    dataset: Dataset, workspace: Workspace, round_id: str, annotator: str, reason: str, *, actor: str = "command line"
) -> WithdrawnWork:
    """Withdraw an annotator's masks of a round. Doing so again does no harm.

    In an open or cancelled round the submissions are taken back, and their images are free for others. After closing,
    the masks are withdrawn from the dataset; masks that the annotator only accepted stay, because somebody else made
    them.

    Raises:
        NotFound: There is no such round or user, or the round is being closed.
    """
    found = workspace.rounds.get(round_id)
    workspace.users.get(annotator)
    if found.state is RoundState.CLOSING:
        raise NotFound(f"round {round_id} is being closed; finish that with `gigamask round close` first")
    if found.state is not RoundState.CLOSED:
        taken = workspace.submissions.withdraw(round_id, annotator, actor=actor, reason=reason)
        return WithdrawnWork(round_id=round_id, annotator=annotator, submissions=len(taken), masks=0)
    dataset.fold()
    own = f"round_id = {_quoted(round_id)} AND annotator_id = {_quoted(annotator)}"
    rows = dataset.query(f"SELECT image_id, mask_id FROM masks WHERE {own}")
    pairs = list(zip(rows["image_id"].to_pylist(), rows["mask_id"].to_pylist(), strict=True))
    if pairs:
        dataset.withdraw(pairs, reason)
    return WithdrawnWork(round_id=round_id, annotator=annotator, submissions=0, masks=len(pairs))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
