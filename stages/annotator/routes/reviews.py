"""Review: two queues of one question each, verdicts, and what becomes of a submission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from stages.annotator.access import Reviewer
from stages.annotator.schemas import Body, Done, LeaseView, ShortText, TaskMaskView, TaskStateView, View
from stages.annotator.server import Server, TheServer
from storage.workspace.fold import TaskState
from storage.workspace.records import Submission, Verdict

router = APIRouter(prefix="/api", tags=["reviews"])

Question = Literal["mask_good", "nothing_missing"]
QuestionAsked = Annotated[Question, Path(description="Question of the queue.")]
SubmissionId = Annotated[int, Path(ge=1, le=2**53, description="Id of a submission.")]
RoundFilter = Annotated[ShortText | None, Query(description="Only submissions of this round; all if left out.")]


class ReviewItem(View):
    """One question about one submission."""

    submission: Submission
    """Submission in question."""
    image_id: str
    """Id of the submission's image."""
    height: int
    """Height of the image, in pixels."""
    width: int
    """Width of the image, in pixels."""
    question: Question
    """The question."""
    mask: TaskMaskView | None = Field(description="Mask in question; null where the whole image is.")
    masks: list[TaskMaskView] = Field(description="All masks of the image; empty where one mask is in question.")
    probability: float | None = Field(
        default=None, description="Probability that the mask is good, by the mask verifier; null where it did not say."
    )


class VerdictBody(Body):
    """Answer to one question; the newest answer of a reviewer counts."""

    submission_id: int = Field(ge=1, le=2**53)
    """Submission that the answer is about."""
    question: Question
    """The question."""
    answer: Literal["yes", "no", "unsure"]
    """The answer."""
    mask: Annotated[str, Field(max_length=64, pattern=r"^[^\x00]*$")] = Field(
        default="", description="Name of the mask; empty for the whole image."
    )
    note: Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")] = ""
    """Remark for others; empty for none."""


class ReasonBody(Body):
    """Why a submission is sent back."""

    reason: Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]
    """Reason, which the annotator is shown."""


@router.get("/reviews/{question}")
def read_review_queue(
    question: QuestionAsked,
    user: Reviewer,
    server: TheServer,
    round_id: RoundFilter = None,
    count: Annotated[int, Query(ge=1, le=100, description="Largest number of questions.")] = 10,
) -> list[ReviewItem]:
    """Read the next questions for this reviewer about others' submissions in open and paused rounds, each asked once.

    Where the dataset has a mask verifier, the image with the most doubtful mask comes first; else the oldest.
    """
    submissions = server.workspace.submissions
    answered = {
        (verdict.submission_id, verdict.mask)
        for verdict in submissions.verdicts(round_id=round_id)
        if verdict.reviewer == user.name and verdict.question == question
    }
    waiting = [each for each in submissions.read_waiting(round_id=round_id) if each.annotator != user.name]
    known = server.doubts.probabilities(waiting)
    waiting.sort(key=lambda each: min(known.get(each.submission_id, {}).values(), default=1.0))
    items: list[ReviewItem] = []
    for submission in waiting:
        items += _items(server, submission, question, answered, known.get(submission.submission_id, {}))
        if len(items) >= count:
            break
    return items[:count]


@router.post("/reviews/verdicts")
def add_verdict(body: VerdictBody, user: Reviewer, server: TheServer) -> Verdict:
    """Store an answer."""
    return server.workspace.submissions.add_verdict(reviewer=user.name, **body.model_dump())


@router.get("/submissions/{submission_id}/verdicts")
def read_verdicts(submission_id: SubmissionId, user: Reviewer, server: TheServer) -> Sequence[Verdict]:
    """Read all answers about a submission, oldest first."""
    server.workspace.submissions.get(submission_id)
    return server.workspace.submissions.verdicts(submission_id=submission_id)


@router.get("/submissions/{submission_id}")
def read_submission(submission_id: SubmissionId, user: Reviewer, server: TheServer) -> TaskStateView:
    """Read the masks of a submission, as they were submitted."""
    found = server.workspace.submissions.get(submission_id)
    return TaskStateView.of(found.task_id, found.annotator, "", _state(server, found))


@router.post("/submissions/{submission_id}/accept")
def accept_submission(submission_id: SubmissionId, user: Reviewer, server: TheServer) -> Done:
    """Mark a submission as reviewed and good."""
    server.workspace.submissions.accept(submission_id, actor=user.name)
    return Done()


@router.post("/submissions/{submission_id}/send-back")
def send_back_submission(submission_id: SubmissionId, body: ReasonBody, user: Reviewer, server: TheServer) -> Done:
    """Send a submission back to its annotator, who goes on from there."""
    server.workspace.submissions.send_back(submission_id, body.reason, actor=user.name)
    return Done()


@router.post("/submissions/{submission_id}/fix")
def fix_submission(submission_id: SubmissionId, user: Reviewer, server: TheServer) -> LeaseView:
    """Begin to fix a submission, or go on: a lease like any other, whose line begins with the submission's masks.

    Submitting it puts the fix in the place of the submission; handing it back leaves the submission as it was.
    """
    return server.view_lease(server.workspace.fixes.begin(submission_id, reviewer=user.name))


def _items(
    server: Server,
    submission: Submission,
    question: Question,
    answered: set[tuple[int, str]],
    probabilities: Mapping[str, float],
) -> list[ReviewItem]:
    """List the questions about one submission that the reviewer has not answered, the most doubtful mask first."""
    if question == "nothing_missing" and (submission.submission_id, "") in answered:
        return []
    task = server.workspace.rounds.task(submission.task_id)
    masks = [TaskMaskView.of(mask) for mask in _state(server, submission).masks]
    common: dict[str, Any] = {
        "submission": submission,
        "image_id": str(task.image_id),
        "height": task.height,
        "width": task.width,
        "question": question,
    }
    if question == "nothing_missing":
        return [ReviewItem(**common, mask=None, masks=masks)]
    open_masks = [mask for mask in masks if (submission.submission_id, mask.mask) not in answered]
    open_masks.sort(key=lambda mask: probabilities.get(mask.mask, 1.0))
    return [ReviewItem(**common, mask=mask, masks=[], probability=probabilities.get(mask.mask)) for mask in open_masks]


def _state(server: Server, submission: Submission) -> TaskState:
    return server.workspace.operations.state(submission.task_id, submission.annotator, revision=submission.revision)
