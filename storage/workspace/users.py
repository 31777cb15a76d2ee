"""Accounts: roles, passwords (argon2id), logins. On a laptop there is one user, without a password."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import Conflict, InvalidInput, NotFound
from storage.workspace import audit
from storage.workspace.columns import now, seconds_from_now
from storage.workspace.database import Database
from storage.workspace.records import Role, User
from storage.workspace.schema import LOGINS, USERS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
MIN_PASSWORD = 10
"""Minimum number of characters of a password."""
_SYSTEM = "command line"


class Users:
    """Methods for the accounts of a workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hasher = PasswordHasher()

    def add(self, name: str, role: Role | str, *, password: str | None = None, actor: str = _SYSTEM) -> User:
        """Add a user.

        Args:
            name: Name of the user; masks carry it as `annotator_id`.
            role: Role of the user.
            password: Password of the account. None: no password opens the account.
            actor: Name of the user who adds the account, for the audit log.

        Raises:
            ValueError: The name, the role or the password does not have the expected form.
            Conflict: There is a user of this name already.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"user name {name!r}: expected 1 to 64 letters, digits or . _ @ -, the first no mark")
        if role not in [*Role]:
            raise InvalidInput(f"role {role!r}: expected one of {', '.join(Role)}")
        row = {"name": name, "role": str(role), "password_hash": self._hash(password) if password is not None else ""}
        try:
            with self._database.write() as connection:
                connection.execute(insert(USERS).values(disabled=False, paused=False, created_at=now(), **row))
                audit.record(connection, actor, "add user", name, {"role": role})
        except IntegrityError as error:
            raise Conflict(f"user {name!r}: there is a user of this name already; choose another name") from error
        return self.get(name)

    def get(self, name: str) -> User:
        """Read a user.

        Raises:
            NotFound: There is no such user.
        """
        with self._database.read() as connection:
            return _user(_row_of(connection, name))

    def read_all(self) -> list[User]:
        """Read all users, ordered by name."""
        with self._database.read() as connection:
            return [_user(row) for row in connection.execute(select(USERS).order_by(USERS.c.name)).mappings()]

    def check_password(self, name: str, password: str) -> User | None:
        """Check a password; return the user, or None if user and password do not belong together.

        A disabled account has no valid password. The check takes the same time for a user who does not exist.
        """
        with self._database.read() as connection:
            row = connection.execute(select(USERS).where(USERS.c.name == name)).mappings().one_or_none()
        stored = row["password_hash"] if row is not None else ""
        matches = self._matches(stored or self._decoy, password)
        return _user(row) if row is not None and stored and matches and not row["disabled"] else None

    def set_password(self, name: str, password: str, *, actor: str = _SYSTEM) -> None:
        """Set a new password and end the user's logins.

        Raises:
            ValueError: The password is too short.
            NotFound: There is no such user.
        """
        self._change(name, actor, "set password", password_hash=self._hash(password))

    def set_role(self, name: str, role: Role | str, *, actor: str = _SYSTEM) -> None:
        """Give a user another role and end the user's logins.

        Raises:
            ValueError: The role is unknown.
            NotFound: There is no such user.
        """
        if role not in [*Role]:
            raise InvalidInput(f"role {role!r}: expected one of {', '.join(Role)}")
        self._change(name, actor, f"set role {role}", role=str(role))

    def disable(self, name: str, *, disabled: bool = True, actor: str = _SYSTEM) -> None:
        """Close an account and end its logins, or open it again; nothing is deleted.

        Raises:
            NotFound: There is no such user.
        """
        self._change(name, actor, "disable" if disabled else "enable", disabled=disabled)

    def pause(self, name: str, *, paused: bool = True, actor: str = _SYSTEM) -> None:
        """Stop giving a user new tasks, or begin again; tasks that the user holds can be finished.

        Raises:
            NotFound: There is no such user.
        """
        self._change(name, actor, "pause" if paused else "resume", end_logins=False, paused=paused)

    def log_in(self, name: str, *, seconds: float) -> str:
        """Open a login that lasts for `seconds`, and return its token; the database holds only the token's hash.

        Raises:
            NotFound: There is no such user.
        """
        token = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            _row_of(connection, name)
            connection.execute(delete(LOGINS).where(LOGINS.c.expires_at < now()))
            row = {"token_sha256": _sha256(token), "user_name": name}
            connection.execute(insert(LOGINS).values(created_at=now(), expires_at=seconds_from_now(seconds), **row))
        return token

    def logged_in(self, token: str) -> User | None:
        """Return the user of a login; None for a login that has ended, is unknown, or belongs to a disabled user."""
        query = (
            select(USERS)
            .join(LOGINS, LOGINS.c.user_name == USERS.c.name)
            .where(LOGINS.c.token_sha256 == _sha256(token), LOGINS.c.expires_at > now(), ~USERS.c.disabled)
        )
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _user(row)

    def log_out(self, token: str) -> None:
        """End a login; one that has ended already does no harm."""
        with self._database.write() as connection:
            connection.execute(delete(LOGINS).where(LOGINS.c.token_sha256 == _sha256(token)))

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerifyMismatchError, InvalidHashError):
            return False

    @cached_property
    def _decoy(self) -> str:
        """Hash that no password has."""
        return self._hasher.hash(secrets.token_hex())

    def _hash(self, password: str) -> str:
        if len(password) < MIN_PASSWORD:
            raise InvalidInput(f"the password has {len(password)} characters; expected at least {MIN_PASSWORD}")
        return self._hasher.hash(password)

    def _change(self, name: str, actor: str, action: str, *, end_logins: bool = True, **values: object) -> None:
        with self._database.write() as connection:
            _row_of(connection, name)
            connection.execute(update(USERS).where(USERS.c.name == name).values(**values))
            if end_logins:
                connection.execute(delete(LOGINS).where(LOGINS.c.user_name == name))
            audit.record(connection, actor, action, name)


def check_may_work(connection: Connection, name: str) -> bool:
    """Whether a user may be given tasks now; False for a paused user.

    Raises:
        NotFound: There is no such user.
        ValueError: The user is disabled.
    """
    row = _row_of(connection, name)
    if row["disabled"]:
        raise InvalidInput(f"user {name!r} is disabled; a lead can enable the account")
    return not row["paused"]


def _row_of(connection: Connection, name: str) -> Mapping[str, Any]:
    row = connection.execute(select(USERS).where(USERS.c.name == name)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"user {name!r}: there is no such user; `gigamask users list` shows all")
    return dict(row)


def _user(row: Mapping[Any, Any]) -> User:
    return User(
        name=row["name"],
        role=Role(row["role"]),
        has_password=bool(row["password_hash"]),
        disabled=row["disabled"],
        paused=row["paused"],
        created_at=row["created_at"],
    )


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
