"""The audit log: who did what to what, written in the transaction of the act itself."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from storage.workspace.columns import now
from storage.workspace.database import Database
from storage.workspace.records import AuditEntry
from storage.workspace.schema import AUDIT_LOG


def record(
    connection: Connection, actor: str, action: str, subject: str, details: Mapping[str, Any] | None = None
) -> None:
    """Add an entry to the log."""
    entry = {"actor": actor, "action": action, "subject": subject, "details": dict(details or {})}
    connection.execute(insert(AUDIT_LOG).values(at=now(), **entry))


def read_log(database: Database, *, newest: int = 100) -> list[AuditEntry]:
    """Read the newest entries, oldest first."""
    query = select(AUDIT_LOG).order_by(AUDIT_LOG.c.number.desc()).limit(newest)
    with database.read() as connection:
        rows = connection.execute(query).mappings().all()
    return [AuditEntry(**row) for row in reversed(rows)]
