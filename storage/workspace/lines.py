"""Lines of operations: an annotator's main line on a task, its branches of late work, and the masks that they give."""

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from storage.errors import InvalidInput, NotFound
from storage.workspace.columns import now
from storage.workspace.fold import TaskState, fold
from storage.workspace.records import PASSIVE, Branch, Kind, Operation, StoredOperation
from storage.workspace.schema import ASSIGNMENTS, BRANCHES, OPERATIONS
from storage.workspace.tasks import read_given


class OutOfOrder(InvalidInput):
    """Error of an operation whose predecessors have not arrived; nothing of its call was stored.

    Attributes:
        revision: Revision of the main line, from which the client has to send again.
    """

    def __init__(self, operation: Operation, revision: int) -> None:
        super().__init__(
            f"operation {operation.op_id} was made on revision {operation.base_revision}, "
            f"but only {revision} have arrived; send the operations since then, in order"
        )
        self.revision = revision


class Line:
    """An annotator's main line and branches on one task, locked within one transaction."""

    def __init__(self, connection: Connection, task_id: int, annotator: str, *, writable: bool) -> None:
        self._connection, self._task_id, self._annotator, self._writable = connection, task_id, annotator, writable
        mine = (ASSIGNMENTS.c.task_id == task_id) & (ASSIGNMENTS.c.annotator == annotator)
        self._where = mine
        self.revision: int = connection.execute(
            select(ASSIGNMENTS.c.revision).where(mine).with_for_update()
        ).scalar_one()
        branches = select(BRANCHES).where(BRANCHES.c.task_id == task_id, BRANCHES.c.annotator == annotator)
        self._branches = [dict(row) for row in connection.execute(branches).mappings()]
        self.branch = self.reason = ""
        self._placed: list[dict[str, Any]] = []
        self._now = connection.execute(select(now())).scalar_one()

    def place(self, operation: Operation, token: str) -> dict[str, Any]:
        """Choose the line of an operation, and return its row."""
        branch, revision = "", self.revision
        if operation.kind not in PASSIVE:
            late = self._branch_for(operation)
            if late is None:
                self.revision += 1
                revision = self.revision
            else:
                late["revision"] += 1
                branch, revision = late["branch"], late["revision"]
                self.branch, self.reason = branch, late["reason"]
        row = {
            "op_id": operation.op_id,
            "task_id": self._task_id,
            "annotator": self._annotator,
            "token": token,
            "session": operation.session,
            "sequence": operation.sequence,
            "base_revision": operation.base_revision,
            "branch": branch,
            "revision": revision,
            "kind": operation.kind,
            "payload": operation.payload,
            "client_time": operation.client_time,
            "server_time": self._now,
        }
        self._placed.append(row)
        return row

    def _branch_for(self, operation: Operation) -> dict[str, Any] | None:
        """Return the branch of a late operation, a new one if need be; None for an operation of the main line."""
        for branch in self._branches:
            if (branch["session"], branch["revision"]) == (operation.session, operation.base_revision):
                return branch
        if operation.base_revision > self.revision:
            raise OutOfOrder(operation, self.revision)
        if self._writable and operation.base_revision == self.revision:
            return None
        self._check_predecessor(operation)
        reason = "the main line has moved on" if self._writable else "the lease has ended"
        branch = {
            "branch": f"branch-{secrets.token_hex(6)}",
            "task_id": self._task_id,
            "annotator": self._annotator,
            "session": operation.session,
            "reason": reason,
            "fork_revision": operation.base_revision,
            "revision": operation.base_revision,
            "state": "open",
        }
        self._connection.execute(insert(BRANCHES).values(created_at=now(), **branch))
        self._branches.append(branch)
        return branch

    def _check_predecessor(self, operation: Operation) -> None:
        """Check that a late operation does not come before an earlier change by its session.

        Its base revision alone does not tell: the main line may have got as far without the session.

        Raises:
            OutOfOrder: The session's operation before it is missing.
        """
        query = select(OPERATIONS).where(
            OPERATIONS.c.task_id == self._task_id,
            OPERATIONS.c.annotator == self._annotator,
            OPERATIONS.c.session == operation.session,
        )
        stored = self._connection.execute(query.order_by(OPERATIONS.c.number)).mappings().all()
        own: list[Mapping[Any, Any]] = [*stored, *(row for row in self._placed if row["session"] == operation.session)]
        changes = [row["revision"] for row in own if row["kind"] not in PASSIVE]
        is_next = operation.sequence - 1 in {row["sequence"] for row in own}
        if changes and operation.base_revision > changes[-1] and not is_next:
            raise OutOfOrder(operation, changes[-1])

    def save(self) -> None:
        """Write the new revisions."""
        self._connection.execute(update(ASSIGNMENTS).where(self._where).values(revision=self.revision))
        for branch in self._branches:
            self._connection.execute(
                update(BRANCHES).where(BRANCHES.c.branch == branch["branch"]).values(revision=branch["revision"])
            )


def read_line(
    connection: Connection, task_id: int, annotator: str, *, branch: str = "", revision: int | None = None
) -> list[StoredOperation]:
    """Read the operations of a line, in their order; passive ones belong to the main line.

    Raises:
        NotFound: There is no such branch.
    """
    rows = rows_of(connection, task_id, annotator)
    main = [row for row in rows if not row.branch]
    if branch:
        fork = branch_of(connection, branch).fork_revision
        rest = [row for row in rows if row.branch == branch]
        main = [row for row in main if row.revision <= fork and row.kind not in PASSIVE]
    else:
        rest = []
    return [row for row in (*main, *rest) if revision is None or row.revision <= revision]


def state_of(
    connection: Connection, task_id: int, annotator: str, *, branch: str = "", revision: int | None = None
) -> TaskState:
    """Compute the masks of a line within a transaction."""
    line = read_line(connection, task_id, annotator, branch=branch, revision=revision)
    return fold(read_given(connection, task_id, "prefill"), line)


def rows_of(connection: Connection, task_id: int, annotator: str) -> list[StoredOperation]:
    """Read all operations of an annotator on a task, those of branches too, in the order of storing."""
    query = (
        select(OPERATIONS)
        .where(OPERATIONS.c.task_id == task_id, OPERATIONS.c.annotator == annotator)
        .order_by(OPERATIONS.c.number)
    )
    return [StoredOperation(**{**row, "kind": Kind(row["kind"])}) for row in connection.execute(query).mappings()]


def branch_of(connection: Connection, branch: str) -> Branch:
    """Read a branch.

    Raises:
        NotFound: There is no such branch.
    """
    row = connection.execute(select(BRANCHES).where(BRANCHES.c.branch == branch)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"branch {branch!r}: there is no such branch")
    return Branch(**row)
