"""Tasks and leases: claim, keep, hand back, skip, submit, and what is on a task."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from stages.annotator.access import Annotator, Lead
from stages.annotator.committed import committed_masks
from stages.annotator.schemas import (
    Body,
    Done,
    LeaseView,
    MaskView,
    ShortText,
    TaskId,
    TaskStateView,
    View,
)
from stages.annotator.server import TheServer
from storage.workspace.records import Branch, Role, Submission, Task

router = APIRouter(prefix="/api", tags=["tasks"])

MAX_SUBMITTED = 30
"""Largest number of submitted tasks that are offered to be opened again."""
Name = Annotated[ShortText | None, Query(description="Annotator whose line is read; yourself if left out.")]
BranchName = Annotated[ShortText | None, Query(description="Branch to read; the main line if left out.")]


class ClaimBody(Body):
    """How many tasks to claim."""

    count: int = Field(default=1, ge=1, le=3, description="Number of tasks: the one to work on, and up to two ahead.")
    round_id: ShortText | None = Field(default=None, description="Round of the tasks; any open round if left out.")


class TokenBody(Body):
    """Token of a lease."""

    token: ShortText
    """Secret of the lease."""


class SkipBody(TokenBody):
    """Token of a lease, and why its task is skipped."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    """Reason for skipping, which the lead can read."""


class SubmitBody(TokenBody):
    """Token of a lease, and what is submitted."""

    revision: int = Field(ge=0, le=2**31 - 1, description="Newest revision of the annotator's line.")


class SubmittedTask(View):
    """A task that the annotator submitted and can open again."""

    task_id: int
    """Id of the task."""
    round_id: str
    """Id of the round."""
    image_url: str
    """Path of the image."""
    masks: int
    """Number of masks that were submitted."""
    submitted_at: datetime
    """Time of submitting."""

    @classmethod
    def of(cls, found: Submission, task: Task) -> SubmittedTask:
        """Write a submitted task."""
        return cls(
            task_id=found.task_id,
            round_id=task.round_id,
            image_url=f"/api/images/{task.image_id}",
            masks=found.masks,
            submitted_at=found.submitted_at,
        )


@router.post("/tasks/claim")
def claim_tasks(body: ClaimBody, user: Annotator, server: TheServer) -> list[LeaseView]:
    """Claim tasks; their images are encoded ahead. An empty list: nothing is left for this annotator now."""
    leases = server.workspace.leases.claim(user.name, body.count, round_id=body.round_id)
    return [server.view_lease(lease) for lease in leases]


@router.get("/tasks/held")
def read_held_tasks(user: Annotator, server: TheServer) -> list[LeaseView]:
    """Read the leases that the annotator holds, oldest first, as after reloading the page."""
    return [server.view_lease(lease) for lease in server.workspace.leases.held(user.name)]


@router.post("/tasks/heartbeat")
def extend_lease(body: TokenBody, user: Annotator, server: TheServer) -> LeaseView:
    """Extend a lease while the page is visible."""
    server.check_lease(body.token, user)
    return server.view_lease(server.workspace.leases.heartbeat(body.token))


@router.post("/tasks/hand-back")
def hand_back_task(body: TokenBody, user: Annotator, server: TheServer) -> Done:
    """End a lease so that others may claim the task; what was done stays stored."""
    server.check_lease(body.token, user)
    server.workspace.leases.hand_back(body.token)
    return Done()


@router.post("/tasks/skip")
def skip_task(body: SkipBody, user: Annotator, server: TheServer) -> Done:
    """End a lease, and never be given the task again."""
    server.check_lease(body.token, user)
    server.workspace.leases.skip(body.token, body.reason)
    return Done()


@router.post("/tasks/submit")
def submit_task(body: SubmitBody, user: Annotator, server: TheServer) -> Submission:
    """Finish a task. Doing it again with the same lease gives the same submission."""
    server.check_lease(body.token, user)
    return server.workspace.submissions.submit(body.token, body.revision)


@router.get("/tasks/submitted")
def read_submitted_tasks(user: Annotator, server: TheServer) -> list[SubmittedTask]:
    """Read the newest tasks that the annotator submitted and can open again, the newest first."""
    workspace = server.workspace
    found = workspace.reopenings.offered(user.name, newest=MAX_SUBMITTED)
    tasks = [workspace.rounds.task(each.task_id) for each in found]
    return [SubmittedTask.of(*pair) for pair in zip(found, tasks, strict=True)]


@router.post("/tasks/{task_id}/reopen")
def reopen_task(task_id: TaskId, user: Annotator, server: TheServer) -> LeaseView:
    """Go on with a task that you submitted, until a reviewer judges it or its round closes.

    The next submission takes the place of the earlier one; handing the lease back leaves that as it was.
    """
    return server.view_lease(server.workspace.reopenings.begin(task_id, annotator=user.name))


@router.post("/tasks/release")
def release_lease(body: TokenBody, user: Lead, server: TheServer) -> Done:
    """End somebody's lease; what they still send becomes a branch."""
    server.workspace.leases.release(body.token, actor=user.name)
    return Done()


@router.get("/tasks/{task_id}/state")
def read_task_state(
    task_id: TaskId, user: Annotator, server: TheServer, annotator: Name = None, branch: BranchName = None
) -> TaskStateView:
    """Read the masks of a line: your own, or as a reviewer anybody's."""
    author = annotator or user.name
    server.check_author(author, user, others=Role.REVIEWER)
    server.workspace.rounds.task(task_id)
    state = server.workspace.operations.state(task_id, author, branch=branch or "")
    return TaskStateView.of(task_id, author, branch or "", state)


@router.get("/tasks/{task_id}/branches")
def read_branches(task_id: TaskId, user: Annotator, server: TheServer, annotator: Name = None) -> list[Branch]:
    """Read the open branches of a task, to be merged or dismissed: your own, or as a lead anybody's."""
    author = annotator or user.name
    server.check_author(author, user, others=Role.LEAD)
    server.workspace.rounds.task(task_id)
    return server.workspace.operations.branches(task_id, annotator=author)


@router.get("/tasks/{task_id}/committed")
def read_committed_masks(task_id: TaskId, user: Annotator, server: TheServer) -> list[MaskView]:
    """Read the masks that the dataset has of a task's image already; refused in rounds that measure people by masks."""
    return [MaskView.of(mask.rle) for mask in committed_masks(server.dataset, server.workspace, task_id)]
