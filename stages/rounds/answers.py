"""Answers of annotators: their submissions as masks, with the facts about the work, read from the workspace."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.rounds.timing import ActiveTime, active_time
from storage.workspace.fold import TaskMask, TaskState, fold
from storage.workspace.records import Submission, Task
from storage.workspace.workspace import Workspace

COUNTED = ("submitted", "accepted")
"""States of the submissions that count; work that was sent back or withdrawn does not."""


@dataclass(frozen=True, kw_only=True)
class ChosenSubmission:
    """Submission that counts, and whether its masks go into the dataset."""

    task: Task
    submission: Submission
    kept: bool
    """Whether its masks go into the dataset; False for gold tasks and for further views of an overlapped image."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Masks that one annotator submitted for one task, and the work that they took."""

    chosen: ChosenSubmission
    state: TaskState
    time: ActiveTime
    prefilled: bool
    """Whether the task began with prefilled masks."""
    verdicts: Mapping[str, str]
    """Newest answer of a reviewer to the question whether a mask is good, by the mask's name."""

    @property
    def task(self) -> Task:
        """The task."""
        return self.chosen.task

    @property
    def annotator(self) -> str:
        """Name of the annotator."""
        return self.chosen.submission.annotator

    def active_s(self, mask: TaskMask) -> float:
        """Return the seconds of work on one mask."""
        return self.time.by_mask.get(mask.mask, 0.0)

    @property
    def search_s(self) -> float:
        """Seconds of the task that belong to none of its masks, shared evenly by them."""
        masks = [*self.state.masks, *self.state.rejected]
        rest = self.time.total_s - sum(self.active_s(mask) for mask in masks)
        return max(0.0, rest) / len(masks) if masks else 0.0


def choose_submissions(workspace: Workspace, round_id: str) -> list[ChosenSubmission]:
    """List the submissions of a round that count, in the order of its images.

    Of several submissions of one image, one is kept for the dataset: the first that a reviewer accepted, or else the
    first. The others serve to measure agreement.
    """
    tasks = workspace.rounds.tasks(round_id)
    by_task: dict[int, list[Submission]] = {task.task_id: [] for task in tasks}
    for submission in workspace.submissions.read(round_id=round_id):
        if submission.state in COUNTED:
            by_task[submission.task_id].append(submission)
    chosen = []
    for task in tasks:
        some = sorted(by_task[task.task_id], key=lambda each: (each.state != "accepted", each.submission_id))
        chosen += [
            ChosenSubmission(task=task, submission=each, kept=not task.gold and number == 0)
            for number, each in enumerate(some)
        ]
    return chosen


def read_answers(workspace: Workspace, chosen: Sequence[ChosenSubmission]) -> Iterator[Answer]:
    """Read the answers one by one, so that a large round need not fit into memory."""
    for each in chosen:
        task_id, annotator = each.task.task_id, each.submission.annotator
        given = workspace.rounds.prefill(task_id)
        line = workspace.operations.read(task_id, annotator)
        verdicts = workspace.submissions.verdicts(submission_id=each.submission.submission_id)
        yield Answer(
            chosen=each,
            state=fold(given, [operation for operation in line if operation.revision <= each.submission.revision]),
            time=active_time(line),
            prefilled=bool(given),
            verdicts={verdict.mask: verdict.answer for verdict in verdicts if verdict.question == "mask_good"},
        )
