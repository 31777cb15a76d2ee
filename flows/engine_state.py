"""State of the engine, as schedules and `gigamask status` read it: accepted masks, firings, free tasks. No Prefect."""

from storage.dataset import Dataset
from storage.workspace.firings import Firing, FiringState
from storage.workspace.records import RoundState
from storage.workspace.workspace import Workspace

RETRAINING, MASKS, PREFILL, VERIFY, AUDIT = "retraining", "masks", "prefill", "verify", "audit"
"""Names of the jobs: at most one firing of a job runs at a time."""
_MASKS_KEY = "masks:"


def count_accepted_masks(dataset: Dataset) -> int:
    """Count the masks that people made or kept in closed rounds so far, as far as they are folded.

    Masks that were withdrawn or edited since are counted too, so that the number only grows and each threshold is
    reached once.
    """
    (row,) = dataset.query("SELECT count(*) AS masks FROM annotations WHERE in_masks AND NOT gold").to_pylist()
    return int(row["masks"])


def count_evaluation_images(dataset: Dataset, held_out_every: int) -> int:
    """Count the images with accepted masks of closed rounds that no training sees, as far as they are folded."""
    sql = (
        "SELECT count(DISTINCT a.image_id) AS images FROM annotations a JOIN masks m ON m.image_id = a.image_id AND "
        f"m.mask_id = a.mask_id WHERE a.in_masks AND NOT a.gold AND a.image_id % {held_out_every} = 0"
    )
    (row,) = dataset.query(sql).to_pylist()
    return int(row["images"])


def masks_at_last_retraining(workspace: Workspace) -> int:
    """Return how many accepted masks there were when the last retraining that ended well began; 0 before the first."""
    done = [each for each in workspace.firings.read_all(RETRAINING) if each.state is FiringState.DONE]
    return int(done[-1].result["accepted_masks"]) if done else 0


def retraining_counts_from(workspace: Workspace) -> int:
    """Return the number of accepted masks from which those until the next retraining are counted.

    It is that of the last retraining that ended well, or the number at which one was given up since.
    """
    keys = [each.key for each in workspace.firings.given_up(RETRAINING) if each.key.startswith(_MASKS_KEY)]
    return max(masks_at_last_retraining(workspace), *(int(key.removeprefix(_MASKS_KEY)) for key in keys), 0)


def key_of_masks(accepted: int) -> str:
    """Name the retraining that is due at a number of accepted masks."""
    return f"{_MASKS_KEY}{accepted}"


def find_due_masks(dataset: Dataset, workspace: Workspace, after_masks: int) -> str:
    """Return the key of the number of accepted masks that was reached since the last retraining; empty if none was."""
    dataset.fold()
    threshold = retraining_counts_from(workspace) + after_masks
    return key_of_masks(threshold) if after_masks and count_accepted_masks(dataset) >= threshold else ""


def count_free(workspace: Workspace) -> int:
    """Count the answers of open rounds that somebody can still claim; audits are no work to prefill ahead of."""
    rounds = [each for each in workspace.rounds.read_all() if each.state is RoundState.OPEN]
    return sum(workspace.rounds.progress(each.round_id).claimable for each in rounds if "audit" not in each.settings)


def describe_newest(firings: list[Firing]) -> str:
    """Say what became of the newest firing of a job, for people."""
    if not firings:
        return "never fired"
    newest = firings[-1]
    attempts = f", attempt {newest.attempts}" if newest.attempts > 1 else ""
    when = newest.ended_at or newest.taken_at
    return f"{newest.state} at {when:%Y-%m-%d %H:%M} UTC by {newest.owner}{attempts}"
