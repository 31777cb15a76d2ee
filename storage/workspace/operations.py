"""Operations: the append-only truth of what annotators did.

An annotator has one main line on a task. An operation joins it if its lease has not ended and it was made on the
line's newest revision. Any other operation is late: it is stored as well, on a branch that continues the revision it
was made on, and its author or a lead can merge it. A page that hears of a branch reads the state again and goes on
with a new session name, since a session stays on the branch that it began.
"""

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, insert, select, update

from storage.errors import InvalidInput
from storage.workspace import audit, leases
from storage.workspace.checking import InvalidOperation, check_operations
from storage.workspace.database import Database
from storage.workspace.fold import TaskState
from storage.workspace.lines import Line, branch_of, read_line, rows_of, state_of
from storage.workspace.records import AppendResult, Branch, Operation, StoredOperation
from storage.workspace.schema import BRANCHES, OPERATIONS, SLOTS, TASKS

_MERGED = uuid.UUID("6a9d7a52-5c1c-5c0e-9b36-0f2f4b8d6c11")
"""Namespace of the ids that merged operations get, so that merging twice gives the same ids."""


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
            found = branch_of(connection, branch)
            lease = leases.require_current(connection, token)
            if found.task_id != lease["task_id"]:
                raise InvalidInput(f"branch {branch} belongs to task {found.task_id}, the lease to {lease['task_id']}")
            own = [each for each in rows_of(connection, found.task_id, found.annotator) if each.branch == branch]
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
            branch_of(connection, branch)
            connection.execute(update(BRANCHES).where(BRANCHES.c.branch == branch).values(state=state))
            audit.record(connection, actor, action, branch)


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


def _size_of(connection: Connection, task_id: int) -> tuple[int, int]:
    row = connection.execute(select(TASKS.c.height, TASKS.c.width).where(TASKS.c.task_id == task_id)).one()
    return row.height, row.width
