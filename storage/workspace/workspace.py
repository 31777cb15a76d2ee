"""The workspace: one database that holds the state of annotation, until closing a round brings its masks home.

    open round -> tasks with slots -> claim -> operations -> submit -> verdicts, fixes -> close

`Workspace.open` gives the object; its parts have the methods: users, rounds, leases, operations, submissions, fixes,
reopenings, firings.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

from storage.workspace.audit import read_log
from storage.workspace.database import Database, connect
from storage.workspace.firings import Firings
from storage.workspace.fixes import Fixes
from storage.workspace.leases import Leases
from storage.workspace.migrate import migrate
from storage.workspace.operations import Operations
from storage.workspace.records import AuditEntry
from storage.workspace.reopenings import Reopenings
from storage.workspace.rounds import Rounds
from storage.workspace.submissions import Submissions
from storage.workspace.users import Users

LEASE_S = 600.0
"""Seconds that a lease lasts after the claim, the last write or the last heartbeat."""
MAX_HELD = 3
"""Most tasks that one annotator holds at a time: the one at work and two ahead."""


class Workspace:
    """A workspace in an SQLite file or a PostgreSQL database; many processes and threads may use it at once.

    A process that forks opens its own.
    """

    def __init__(self, database: Database, *, lease_s: float = LEASE_S, max_held: int = MAX_HELD) -> None:
        self.database = database
        self.users = Users(database)
        self.rounds = Rounds(database)
        self.leases = Leases(database, lease_s=lease_s, max_held=max_held)
        self.operations = Operations(database, lease_s=lease_s)
        self.submissions = Submissions(database)
        self.fixes = Fixes(database, lease_s=lease_s)
        self.reopenings = Reopenings(database, lease_s=lease_s)
        self.firings = Firings(database)

    @classmethod
    def open(cls, place: str | Path, *, lease_s: float = LEASE_S, max_held: int = MAX_HELD) -> Self:
        """Open a workspace; create it where there is none, and bring an older one to the newest schema.

        Args:
            place: Path of an SQLite file, or URL: postgresql://user@host/name.
            lease_s: Seconds that a lease lasts after the claim, the last write or the last heartbeat.
            max_held: Most tasks that one annotator holds at a time.

        Raises:
            ValueError: The URL is malformed, or is that of another database system.
            StoreError: A newer version of gigamask wrote the workspace, the folder of the file is missing, or the
                driver for PostgreSQL is not installed.
            WorkspaceUnavailable: The database does not answer.
        """
        database = connect(place)
        migrate(database)
        return cls(database, lease_s=lease_s, max_held=max_held)

    def __repr__(self) -> str:
        return f"Workspace({self.database.place!r})"

    def audit_log(self, *, newest: int = 100) -> list[AuditEntry]:
        """Read the newest entries of the audit log, oldest first."""
        return read_log(self.database, newest=newest)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
