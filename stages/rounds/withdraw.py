"""Take the masks of one annotator of one round back, before or after the round was closed."""

from dataclasses import dataclass

from stages.rounds.close import close_round
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.workspace.records import Round, RoundState
from storage.workspace.sharing import OtherIsClosing
from storage.workspace.withdrawals import withdrawals_of
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
    restored: int = 0
    """Number of masks that stand in their place: those that stood before, and what others answered."""


def withdraw_work(
    dataset: Dataset, workspace: Workspace, round_id: str, annotator: str, reason: str, *, actor: str = "command line"
) -> WithdrawnWork:
    """Withdraw an annotator's work on a round: all is as if the annotator had not submitted in it. Again does no harm.

    In an open or cancelled round the submissions are taken back, and their images are free for others. After closing,
    the dataset's masks are withdrawn, those that stood before come back, and what others answered about the same images
    counts, by the rules of closing.

    Raises:
        NotFound: There is no such round or user, or the round is being closed.
        StoreError: The dataset or the workspace cannot be read or written.
    """
    found = workspace.rounds.get(round_id)
    workspace.users.get(annotator)
    if found.state not in (RoundState.CLOSED, RoundState.CLOSING):
        taken = workspace.submissions.withdraw(round_id, annotator, actor=actor, reason=reason)
        return WithdrawnWork(round_id=round_id, annotator=annotator, submissions=len(taken), masks=0)
    nothing = WithdrawnWork(round_id=round_id, annotator=annotator, submissions=0, masks=0)
    is_known = annotator in {each.annotator for each in withdrawals_of(found)}
    if found.state is RoundState.CLOSED and (is_known or not found.plan_id):
        return nothing
    if found.state is RoundState.CLOSING and not is_known:
        raise NotFound(f"round {round_id} is being closed; finish that with `gigamask round close` first")
    try:
        workspace.rounds.begin_withdrawal(round_id, annotator, reason, actor=actor)
    except OtherIsClosing as error:
        close_round(dataset, workspace, error.other, actor=actor)
        return withdraw_work(dataset, workspace, round_id, annotator, reason, actor=actor)
    close_round(dataset, workspace, round_id, actor=actor)
    plan_id = _plan_of(workspace.rounds.get(round_id), annotator)
    commits = dataset.commits(dataset.plan(plan_id)) if plan_id else []
    masks = sum(part.masks for commit in commits for part in commit.withdrawn())
    restored = sum(commit.masks for commit in commits)
    return WithdrawnWork(round_id=round_id, annotator=annotator, submissions=0, masks=masks, restored=restored)


def _plan_of(found: Round, annotator: str) -> str:
    """Return the id of the plan that withdrew an annotator's work; empty where nothing changed."""
    return next(each.plan_id or "" for each in withdrawals_of(found) if each.annotator == annotator)
