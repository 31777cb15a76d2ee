"""Operations: what an annotator did, stored as it arrives. Late ones are stored on a branch and answered with 409."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.encoders import jsonable_encoder
from pydantic import AwareDatetime, Field

from stages.annotator.access import Annotator, Lead
from stages.annotator.errors import Refusal
from stages.annotator.routes.rounds import RoundId
from stages.annotator.routes.tasks import TokenBody
from stages.annotator.schemas import Body, Done, ShortText, TaskId, TaskMaskView, TaskStateView, View
from stages.annotator.server import Server, TheServer
from storage.errors import NotFound
from storage.workspace.checking import MAX_OPERATIONS
from storage.workspace.records import PASSIVE, AppendResult, Branch, Kind, Operation, Role, User

router = APIRouter(prefix="/api", tags=["operations"])

BranchId = Annotated[ShortText, Path(description="Name of a branch.")]
OfTask = Annotated[int, Query(ge=1, le=2**53, description="Task of the branch.")]


class OperationBody(Body):
    """One action of an annotator."""

    op_id: ShortText = Field(description="UUID of version 7, made by the client; sending it twice is harmless.")
    session: ShortText = Field(description="Name of the page, new each time that it is opened.")
    sequence: int = Field(ge=0, le=2**31 - 1)
    """Number of the operation within its session, from 0."""
    base_revision: int = Field(ge=0, le=2**31 - 1)
    """Revision of the line that the operation was made on."""
    kind: Kind
    """Kind of the operation."""
    payload: dict[str, Any] = Field(default={})
    """Content, which depends on the kind."""
    client_time: AwareDatetime
    """Time of the action by the client's clock."""

    def operation(self) -> Operation:
        """Return the operation for the workspace, which checks it against its task."""
        return Operation(**{name: getattr(self, name) for name in type(self).model_fields})


class OperationsBody(Body):
    """Operations of a lease, in their order."""

    token: ShortText
    """Secret of the lease."""
    operations: Annotated[list[OperationBody], Field(min_length=1, max_length=MAX_OPERATIONS)]
    """Operations, oldest first."""


class LineOperation(View):
    """An operation of an annotator's line; those that change no mask are left out."""

    op_id: str
    """Id of the operation."""
    kind: str
    """Kind of the operation."""
    payload: dict[str, Any]
    """Content, which depends on the kind."""
    revision: int = Field(description="Revision of the line after the operation.")


class LineView(View):
    """Prefilled masks and operations, from which a client computes every state of a line, for undo without asking."""

    task_id: int
    """Id of the task."""
    given: list[TaskMaskView]
    """Masks that the line begins with."""
    operations: list[LineOperation]
    """Operations, oldest first."""


class LateLine(View):
    """An open branch of a round, and the image that was worked on."""

    branch: Branch
    """Branch, without its operations."""
    image_id: str
    """Id of the image, as a text of digits."""


class BranchComparison(View):
    """A branch beside the main line, for the merge view."""

    branch: TaskStateView
    """State of the branch."""
    main: TaskStateView
    """State of the annotator's main line."""
    common: TaskStateView = Field(description="State of the main line where the branch began.")


@router.post("/operations")
def append_operations(body: OperationsBody, user: Annotator, server: TheServer) -> AppendResult:
    """Store operations, all or none. 409 `stored_on_branch`: they are stored, but not on the main line."""
    server.check_lease(body.token, user)
    result = server.workspace.operations.append(body.token, [each.operation() for each in body.operations])
    if result.branch:
        raise Refusal(
            409,
            "stored_on_branch",
            f"the operations are stored on {result.branch}, because {result.reason or 'earlier ones are'}; "
            "read the branch and merge or dismiss it, and go on with a new session",
            details=jsonable_encoder(result),
        )
    return result


@router.get("/tasks/{task_id}/line")
def read_line(task_id: TaskId, user: Annotator, server: TheServer) -> LineView:
    """Read your own main line of a task: what it began with, and every operation since."""
    server.workspace.rounds.task(task_id)
    operations = server.workspace.operations
    given = operations.state(task_id, user.name, revision=0).masks
    return LineView(
        task_id=task_id,
        given=[TaskMaskView.of(mask) for mask in given],
        operations=[
            LineOperation(op_id=each.op_id, kind=each.kind, payload=dict(each.payload), revision=each.revision)
            for each in operations.read(task_id, user.name)
            if each.kind not in PASSIVE
        ],
    )


@router.get("/rounds/{round_id}/branches")
def read_branches_of_round(round_id: RoundId, user: Lead, server: TheServer) -> list[LateLine]:
    """Read the open branches of a round, oldest first."""
    server.workspace.rounds.get(round_id)
    found = server.workspace.operations.branches(round_id=round_id)
    return [LateLine(branch=each, image_id=str(server.workspace.rounds.task(each.task_id).image_id)) for each in found]


@router.get("/branches/{branch}")
def compare_branch(branch: BranchId, task_id: OfTask, user: Annotator, server: TheServer) -> BranchComparison:
    """Read a branch, the main line and where they part: your own, or as a lead anybody's."""
    found = _branch(server, branch, task_id, user)
    operations, author = server.workspace.operations, found.annotator
    return BranchComparison(
        branch=TaskStateView.of(task_id, author, branch, operations.state(task_id, author, branch=branch)),
        main=TaskStateView.of(task_id, author, "", operations.state(task_id, author)),
        common=TaskStateView.of(task_id, author, "", operations.state(task_id, author, revision=found.fork_revision)),
    )


@router.post("/branches/{branch}/merge")
def merge_branch(
    branch: BranchId, task_id: OfTask, body: TokenBody, user: Annotator, server: TheServer
) -> AppendResult:
    """Append a branch's operations to the line of a lease of yours, where they still fit."""
    _branch(server, branch, task_id, user)
    server.check_lease(body.token, user)
    return server.workspace.operations.merge(branch, body.token, actor=user.name)


@router.post("/branches/{branch}/settle")
def settle_branch(branch: BranchId, task_id: OfTask, user: Annotator, server: TheServer) -> Done:
    """Mark a branch as merged, after you have put what you want of it on your line with operations of your own."""
    _branch(server, branch, task_id, user)
    server.workspace.operations.settle(branch, actor=user.name)
    return Done()


@router.post("/branches/{branch}/dismiss")
def dismiss_branch(branch: BranchId, task_id: OfTask, user: Annotator, server: TheServer) -> Done:
    """Mark a branch as not wanted; its operations stay stored."""
    _branch(server, branch, task_id, user)
    server.workspace.operations.dismiss(branch, actor=user.name)
    return Done()


def _branch(server: Server, branch: str, task_id: OfTask, user: User) -> Branch:
    """Find a branch of a task.

    Raises:
        NotFound: The task has no such branch.
        Refusal: It is somebody else's, and the user is no lead.
    """
    for found in server.workspace.operations.branches(task_id, state=None):
        if found.branch == branch:
            server.check_author(found.annotator, user, others=Role.LEAD)
            return found
    raise NotFound(f"branch {branch!r}: task {task_id} has no such branch; read the task's branches")
