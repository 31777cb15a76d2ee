"""Answers of annotators: their submissions as masks, with the facts about the work, read from the workspace."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.rounds.timing import ActiveTime, active_time
from storage import rle
from storage.workspace.fold import TaskMask, TaskState, fold
from storage.workspace.records import COUNTED, GivenMask, Origin, Submission, Task
from storage.workspace.submissions import replaced_by_fixes, with_their_fixes
from storage.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ChosenSubmission:
    """Submission that counts, and whether its masks go into the dataset."""

    task: Task
    submission: Submission
    kept: bool
    """Whether its masks go into the dataset; False for gold tasks and for further views of an overlapped image."""
    fix: Submission | None = None
    """Reviewer's submission that took the place of this one; None for a submission that nobody fixed."""


@dataclass(frozen=True, kw_only=True)
class Fix:
    """What a reviewer made of an annotator's submission."""

    reviewer: str
    state: TaskState
    """Masks of the submission after the fix; those that are the annotator's name them as author."""
    time: ActiveTime
    """Time of the reviewer, that of the annotator apart."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Masks that one annotator submitted for one task, and the work that they took."""

    chosen: ChosenSubmission
    state: TaskState
    """Masks as the annotator submitted them; they tell how the annotator works."""
    time: ActiveTime
    """Time of the annotator."""
    fix: Fix | None
    """Fix by a reviewer; None for a submission that nobody fixed."""
    given: tuple[GivenMask, ...]
    """Prefilled masks that the task began with."""
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

    @property
    def prefilled(self) -> bool:
        """Whether the task began with prefilled masks."""
        return bool(self.given)

    @property
    def final(self) -> TaskState:
        """Masks that count for the dataset: after the fix if there was one."""
        return self.state if self.fix is None else self.fix.state

    @property
    def replaced(self) -> list[str]:
        """Masks of the dataset that are not left as they were, but changed, merged, split, rejected or removed."""
        left = {mask.source for mask in self.final.masks if mask.origin is Origin.PREFILL_ACCEPTED}
        return [mask.source for mask in self.given if mask.source and mask.source not in left]

    def active_s(self, mask: TaskMask) -> float:
        """Return the annotator's seconds of work on one mask."""
        return self.time.by_mask.get(mask.mask, 0.0)

    def fix_s(self, mask: TaskMask) -> float:
        """Return a reviewer's seconds of work on one mask."""
        return 0.0 if self.fix is None else self.fix.time.by_mask.get(mask.mask, 0.0)

    def prefill_iou(self, mask: TaskMask) -> float | None:
        """Return the IoU of a mask with the prefilled mask that it was; None for one that was made.

        It is 1 for a mask that was left as it was, and 0 for one that was rejected. What was merged or split has the
        IoU with the prefilled mask that it is most like.
        """
        if mask.origin is Origin.MADE or not self.given:
            return None
        if mask.mask in {each.mask for each in self.final.rejected}:
            return 0.0
        same = [given.rle for given in self.given if given.mask == mask.mask]
        return float(rle.iou_matrix([mask.rle], same or [given.rle for given in self.given]).max())

    @property
    def search_s(self) -> float:
        """The annotator's seconds that belong to none of the masks, shared evenly by those that count."""
        masks = [*self.final.masks, *self.final.rejected]
        rest = self.time.total_s - sum(self.active_s(mask) for mask in masks)
        return max(0.0, rest) / len(masks) if masks else 0.0


def choose_submissions(workspace: Workspace, round_id: str, *, without: Collection[str] = ()) -> list[ChosenSubmission]:
    """List the submissions of a round that count, in the order of its images; those of some annotators are left out.

    Of several submissions of one image, one is kept for the dataset: the first that a reviewer accepted or fixed, or
    else the first. The others serve to measure agreement. A fix stands with the submission whose place it took.
    """
    tasks = workspace.rounds.tasks(round_id)
    by_task: dict[int, list[Submission]] = {task.task_id: [] for task in tasks}
    everything = workspace.submissions.read(round_id=round_id)
    counted = [each for each in everything if each.state in COUNTED]
    left_out = {each.submission_id for each in with_their_fixes(counted, without)}
    everything = [each for each in everything if each.submission_id not in left_out]
    fixes = replaced_by_fixes(everything)
    for submission in everything:
        if submission.state in COUNTED and submission.fixes is None:
            by_task[submission.task_id].append(submission)
    chosen = []
    for task in tasks:
        pairs = [(each, _newest_fix(each, fixes)) for each in by_task[task.task_id]]
        pairs.sort(key=lambda pair: ((pair[1] or pair[0]).state != "accepted", pair[0].submission_id))
        chosen += [
            ChosenSubmission(task=task, submission=each, kept=not task.gold and number == 0, fix=fix)
            for number, (each, fix) in enumerate(pairs)
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
            fix=None if each.fix is None else _read_fix(workspace, each.fix),
            given=given,
            verdicts={verdict.mask: verdict.answer for verdict in verdicts if verdict.question == "mask_good"},
        )


def _newest_fix(submission: Submission, fixes: Mapping[int, Submission]) -> Submission | None:
    """Return the newest fix of a submission, or of one of its fixes; None without a fix."""
    fix = fixes.get(submission.submission_id)
    return None if fix is None else _newest_fix(fix, fixes) or fix


def _read_fix(workspace: Workspace, submission: Submission) -> Fix:
    """Read a fix; only the reviewer's work since it began counts, not that on another view of the image."""
    line = workspace.operations.read(submission.task_id, submission.annotator, revision=submission.revision)
    state = fold((), line)
    return Fix(
        reviewer=submission.annotator,
        state=state,
        time=active_time(operation for operation in line if operation.revision >= state.fix_revision),
    )
