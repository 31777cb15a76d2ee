"""Operations: the append-only truth of what annotators did.

An annotator has one main line on a task. An operation joins it if its lease has not ended and it was made on the
line's newest revision. Any other operation is late: it is stored as well, on a branch that continues the revision it
was made on, and its author or a lead can merge it. A page that hears of a branch reads the state again and goes on
with a new session name, since a session stays on the branch that it began.
"""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from storage.errors import InvalidInput, NotFound
from storage.workspace import audit, leases
from storage.workspace.checking import InvalidOperation, check_operations
from storage.workspace.columns import now
from storage.workspace.database import Database
from storage.workspace.fold import TaskState, fold
from storage.workspace.records import PASSIVE, AppendResult, Branch, Kind, Operation, StoredOperation
from storage.workspace.schema import ASSIGNMENTS, BRANCHES, OPERATIONS, SLOTS, TASKS
from storage.workspace.tasks import read_given

_MERGED = uuid.UUID("6a9d7a52-5c1c-5c0e-9b36-0f2f4b8d6c11")
"""Namespace of the ids that merged operations get, so that merging twice gives the same ids."""


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


class Operations:
    """Methods for the operations of a workspace.

    Args:
        database: The database.
        lease_s: Seconds that a lease lasts after a write.
    """

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s

    def append(self, token: str, operations: Sequence[Operation]) -> AppendResult:
        """Store operations of a lease, in their order, all or none; those that are stored already are left alone.

        Raises:
            NotFound: There is no such lease.
            InvalidOperation: An operation is malformed, or its id was stored with other content.
            OutOfOrder: Earlier operations of the client are missing.
        """
        with self._database.write() as connection:
            lease = leases.lease_of(connection, token)
            current = leases.lock_slot(connection, lease)
            task_id, annotator = lease["task_id"], lease["annotator"]
            line = Line(connection, task_id, annotator, writable=current)
            checked = check_operations(operations, _size_of(connection, task_id))
            known = _known(connection, checked, task_id, annotator)
            rows = [line.place(each, token) for each in checked if each.op_id not in known]
            if rows:
                connection.execute(insert(OPERATIONS), rows)
            line.save()
            if current:
                leases.extend(connection, token, self._lease_s)
            expires = connection.execute(select(SLOTS.c.expires_at).where(SLOTS.c.token == token)).scalar_one_or_none()
        return AppendResult(
            stored=tuple(row["op_id"] for row in rows),
            known=tuple(each.op_id for each in checked if each.op_id in known),
            revision=line.revision,
            branch=line.branch or next((branch for branch in known.values() if branch), ""),
            reason=line.reason,
            expires_at=expires,
        )

    def read(
        self, task_id: int, annotator: str, *, branch: str = "", revision: int | None = None
    ) -> list[StoredOperation]:
        """Read the operations of an annotator's main line, or of a branch with what it continues, in their order.

        Args:
            task_id: The task.
            annotator: The annotator.
            branch: Name of a branch; empty for the main line.
            revision: Last revision to read; None for all.
        """
        with self._database.read() as connection:
            return read_line(connection, task_id, annotator, branch=branch, revision=revision)

    def state(self, task_id: int, annotator: str, *, branch: str = "", revision: int | None = None) -> TaskState:
        """Compute the masks of a line: the fold of its prefilled masks and operations."""
        with self._database.read() as connection:
            return state_of(connection, task_id, annotator, branch=branch, revision=revision)

    def branches(
        self,
        task_id: int | None = None,
        *,
        round_id: str | None = None,
        annotator: str | None = None,
        state: str | None = "open",
    ) -> list[Branch]:
        """Read branches, oldest first.

        Args:
            task_id: Only branches of this task; None for all.
            round_id: Only branches of tasks of this round; None for all.
            annotator: Only branches of this annotator; None for all.
            state: Only branches in this state: open, merged or dismissed; None for all.
        """
        query = select(BRANCHES).order_by(BRANCHES.c.created_at)
        if task_id is not None:
            query = query.where(BRANCHES.c.task_id == task_id)
        if round_id is not None:
            query = query.where(BRANCHES.c.task_id.in_(select(TASKS.c.task_id).where(TASKS.c.round_id == round_id)))
        if annotator is not None:
            query = query.where(BRANCHES.c.annotator == annotator)
        if state is not None:
            query = query.where(BRANCHES.c.state == state)
        with self._database.read() as connection:
            return [Branch(**row) for row in connection.execute(query).mappings()]

    def merge(self, branch: str, token: str, *, actor: str) -> AppendResult:
        """Append the operations of a branch to the line of a lease, as new operations on its newest revision.

        What no longer fits, such as a change of a mask that is gone, changes nothing. Merging twice does no harm.

        Raises:
            NotFound: There is no such branch or lease.
            StaleLease: The lease has ended.
            ValueError: The branch belongs to another task.
        """
        with self._database.write() as connection:
            found = _branch_of(connection, branch)
            lease = leases.require_current(connection, token)
            if found.task_id != lease["task_id"]:
                raise InvalidInput(f"branch {branch} belongs to task {found.task_id}, the lease to {lease['task_id']}")
            own = [each for each in _rows(connection, found.task_id, found.annotator) if each.branch == branch]
            line = Line(connection, lease["task_id"], lease["annotator"], writable=True)
            copies = [_copy(each, line.revision + number, branch, token) for number, each in enumerate(own)]
            known = _known(connection, copies, lease["task_id"], lease["annotator"], same_content=False)
            rows = [line.place(each, token) for each in copies] if not known else []
            if rows:
                connection.execute(insert(OPERATIONS), rows)
            line.save()
            connection.execute(update(BRANCHES).where(BRANCHES.c.branch == branch).values(state="merged"))
            leases.extend(connection, token, self._lease_s)
            audit.record(connection, actor, "merge branch", branch, {"task": found.task_id})
        return AppendResult(
            stored=tuple(row["op_id"] for row in rows),
            known=tuple(known),
            revision=line.revision,
            branch="",
            reason="",
            expires_at=None,
        )

    def dismiss(self, branch: str, *, actor: str) -> None:
        """Mark a branch as not wanted; its operations stay stored.

        Raises:
            NotFound: There is no such branch.
        """
        self._close(branch, "dismissed", actor, "dismiss branch")

    def settle(self, branch: str, *, actor: str) -> None:
        """Mark a branch as merged, after what is wanted of it was put on the main line by operations of its own.

        Raises:
            NotFound: There is no such branch.
        """
        self._close(branch, "merged", actor, "settle branch")

    def _close(self, branch: str, state: str, actor: str, action: str) -> None:
        with self._database.write() as connection:
            _branch_of(connection, branch)
            connection.execute(update(BRANCHES).where(BRANCHES.c.branch == branch).values(state=state))
            audit.record(connection, actor, action, branch)


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
    rows = _rows(connection, task_id, annotator)
    main = [row for row in rows if not row.branch]
    if branch:
        fork = _branch_of(connection, branch).fork_revision
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


def _rows(connection: Connection, task_id: int, annotator: str) -> list[StoredOperation]:
    query = (
        select(OPERATIONS)
        .where(OPERATIONS.c.task_id == task_id, OPERATIONS.c.annotator == annotator)
        .order_by(OPERATIONS.c.number)
    )
    return [StoredOperation(**{**row, "kind": Kind(row["kind"])}) for row in connection.execute(query).mappings()]


def _known(
    connection: Connection,
    operations: Sequence[Operation],
    task_id: int,
    annotator: str,
    *,
    same_content: bool = True,
) -> Mapping[str, str]:
    """Map the ids of operations that are stored already to their branches."""
    query = select(OPERATIONS).where(OPERATIONS.c.op_id.in_([each.op_id for each in operations]))
    stored = {row["op_id"]: row for row in connection.execute(query).mappings()}
    for each in operations:
        row = stored.get(each.op_id)
        if row is None:
            continue
        same_place = (row["task_id"], row["annotator"]) == (task_id, annotator)
        same = not same_content or (row["kind"], row["payload"], row["session"]) == (
            each.kind,
            each.payload,
            each.session,
        )
        if not (same_place and same):
            raise InvalidOperation(each.op_id, "this op_id was stored with other content; make a new UUID")
    return {op_id: row["branch"] for op_id, row in stored.items()}


def _copy(operation: StoredOperation, base_revision: int, branch: str, token: str) -> Operation:
    return Operation(
        op_id=str(uuid.uuid5(_MERGED, f"{operation.op_id} {token}")),
        session=branch,
        sequence=operation.sequence,
        base_revision=base_revision,
        kind=operation.kind,
        payload=operation.payload,
        client_time=operation.client_time,
    )


def _branch_of(connection: Connection, branch: str) -> Branch:
    row = connection.execute(select(BRANCHES).where(BRANCHES.c.branch == branch)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"branch {branch!r}: there is no such branch")
    return Branch(**row)


def _size_of(connection: Connection, task_id: int) -> tuple[int, int]:
    row = connection.execute(select(TASKS.c.height, TASKS.c.width).where(TASKS.c.task_id == task_id)).one()
    return row.height, row.width
