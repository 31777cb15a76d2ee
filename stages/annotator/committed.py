"""What the dataset has of a task's image already: shown faintly on the page, for annotators to see what is there."""

from __future__ import annotations

from stages.annotator.errors import Refusal
from storage.dataset import Dataset
from storage.records import MaskRecord
from storage.tables.samples import read_masks
from storage.workspace.records import RoundState
from storage.workspace.workspace import Workspace

_MEASURES = ("gold", "empty_fraction")
"""Settings of a round that compares annotators with masks, or images without prefilled masks with others."""


def committed_masks(dataset: Dataset, workspace: Workspace, task_id: int) -> list[MaskRecord]:
    """Read the masks of a task's image in the newest state of the dataset's tables.

    Raises:
        Refusal: The round, or another open one about the image, measures what annotators make without seeing masks.
        Erased: The image was erased.
        NotFound: There is no such task.
    """
    task = workspace.rounds.task(task_id)
    own = workspace.rounds.get(task.round_id)
    unfinished = [each for each in workspace.rounds.read_all() if each.state in (RoundState.OPEN, RoundState.PAUSED)]
    if any(
        any(found.settings.get(each) for each in _MEASURES)
        and (found == own or any(each.image_id == task.image_id for each in workspace.rounds.tasks(found.round_id)))
        for found in (own, *unfinished)
    ):
        raise Refusal(403, "not_shown", "this round measures what people find by themselves; masks are not shown in it")
    return read_masks(dataset.store, dataset.masks_of_image(task.image_id).to_pylist())
