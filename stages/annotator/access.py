"""Who may do what: session cookies, CSRF tokens, roles, and the two modes of access.

On a laptop there is one account without a password. A one-time token in the link that the command prints is exchanged
for a session cookie, and the server answers on loopback only. A team has accounts with passwords and roles.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from fastapi import Depends, Request, Response

from stages.annotator.errors import Refusal
from stages.annotator.limits import RateLimit
from storage.workspace import audit
from storage.workspace.records import Role, User
from storage.workspace.workspace import Workspace

COOKIE = "gigamask_session"
CSRF_HEADER = "X-CSRF-Token"
RANK = {role: rank for rank, role in enumerate(Role)}
"""Rank of each role: a role may do all that the roles of lower rank may."""
LAPTOP_USER = "me"
"""Name of the one account of a laptop."""

Mode = Literal["laptop", "team"]


@dataclass(frozen=True, kw_only=True)
class AccessConfig:
    """Settings of access."""

    mode: Mode = "laptop"
    session_s: float = 12 * 3600.0
    """Duration of a login, in seconds; on a laptop, logins last 30 days."""
    secure_cookies: bool = False
    """Whether cookies are sent over TLS alone."""
    logins_per_minute: float = 6.0
    """Rate of login attempts of one account from one address, per minute; all accounts together may have ten times as
    many from one address."""
    predictions_per_s: float = 20.0
    """Rate of predictions of one account, per second."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """A request's login: its user and its session token."""

    user: User
    token: str

    @property
    def csrf_token(self) -> str:
        """Token that every request that changes something sends in a header; it follows from the session token."""
        return hmac.new(self.token.encode(), b"csrf", hashlib.sha256).hexdigest()


@dataclass(kw_only=True)
class Access:
    """Logins of one server."""

    workspace: Workspace
    config: AccessConfig
    login_limit: RateLimit = field(init=False)
    address_limit: RateLimit = field(init=False)
    predict_limit: RateLimit = field(init=False)
    _link_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        logins = self.config.logins_per_minute
        self.login_limit = RateLimit(logins / 60, burst=max(1, round(logins)))
        self.address_limit = RateLimit(10 * logins / 60, burst=max(1, round(10 * logins)))
        self.predict_limit = RateLimit(
            self.config.predictions_per_s, burst=max(1, round(self.config.predictions_per_s))
        )

    @property
    def link_token(self) -> str:
        """One-time token of a laptop's link; empty once it is used."""
        return self._link_token if self.config.mode == "laptop" else ""

    def count_attempt(self, name: str, address: str) -> None:
        """Count an attempt to log in.

        Raises:
            Refusal: There were too many.
        """
        self.address_limit.take(address, "login attempts")
        self.login_limit.take(f"{name} {address}", "login attempts")

    def log_in_by_password(self, name: str, password: str) -> Login:
        """Log in a member of a team.

        Raises:
            Refusal: The server is a laptop's, or name and password do not belong together.
        """
        if self.config.mode != "team":
            raise Refusal(
                403, "no_accounts", "this server has no accounts; open the link that `gigamask annotate` prints"
            )
        user = self.workspace.users.check_password(name, password)
        if user is None:
            self._record(name, "refused login")
            raise Refusal(401, "wrong_password", "name and password do not belong together; try again or ask a lead")
        return self._begin(user)

    def log_in_by_link(self, token: str) -> Login:
        """Exchange a laptop's one-time token for a login.

        Raises:
            Refusal: The token is used, wrong, or the server is a team's.
        """
        with self._lock:
            expected = self.link_token
            if not expected or not hmac.compare_digest(token.encode(), expected.encode()):
                raise Refusal(
                    401, "wrong_link", "the link was used or is of another server; run `gigamask annotate` again"
                )
            self._link_token = ""
        return self._begin(self.workspace.users.get(LAPTOP_USER))

    def is_logged_in(self, request: Request) -> bool:
        """Tell whether a request carries the cookie of a login that has not ended."""
        token = request.cookies.get(COOKIE, "")
        return bool(token) and self.workspace.users.logged_in(token) is not None

    def find(self, request: Request) -> Login:
        """Find the login of a request, and check the CSRF token of a request that changes something.

        Raises:
            Refusal: There is no login, it has ended, or the CSRF token is missing or wrong.
        """
        token = request.cookies.get(COOKIE, "")
        user = self.workspace.users.logged_in(token) if token else None
        if user is None:
            raise Refusal(401, "login_required", "there is no login or it has ended; log in, nothing unsent is lost")
        login = Login(user=user, token=token)
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            sent = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(sent.encode(), login.csrf_token.encode()):
                raise Refusal(
                    403, "csrf", f"the header {CSRF_HEADER} is missing or wrong; send the csrf_token of GET /api/me"
                )
        return login

    def set_cookie(self, response: Response, login: Login) -> None:
        """Give the browser the session cookie."""
        response.set_cookie(
            COOKIE,
            login.token,
            max_age=int(self._session_s),
            httponly=True,
            samesite="strict",
            secure=self.config.secure_cookies,
            path="/",
        )

    def log_out(self, login: Login, response: Response) -> None:
        """End a login and remove the cookie."""
        self.workspace.users.log_out(login.token)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=self.config.secure_cookies)

    @property
    def _session_s(self) -> float:
        return self.config.session_s if self.config.mode == "team" else 30 * 24 * 3600.0

    def _begin(self, user: User) -> Login:
        self._record(user.name, "log in")
        return Login(user=user, token=self.workspace.users.log_in(user.name, seconds=self._session_s))

    def _record(self, name: str, action: str) -> None:
        """Write a login or a refused one into the audit log."""
        with self.workspace.database.write() as connection:
            audit.record(connection, name, action, name)


def require(role: Role) -> Callable[[Request], User]:
    """Make the dependency of a route that a role may use.

    The returned function raises Refusal for a request without a login, or with one of a lower role.
    """

    def check(request: Request) -> User:
        access: Access = request.app.state.server.access
        user = access.find(request).user
        if RANK[user.role] < RANK[role]:
            raise Refusal(403, "forbidden", f"your role is {user.role}, this needs {role}; ask a lead")
        return user

    return check


def find_login(request: Request) -> Login:
    """Find the login of a request; a dependency.

    Raises:
        Refusal: There is none, or it has ended.
    """
    access: Access = request.app.state.server.access
    return access.find(request)


find_annotator = require(Role.ANNOTATOR)
"""Dependency of the routes that everybody with a login may use."""
Annotator = Annotated[User, Depends(find_annotator)]
Reviewer = Annotated[User, Depends(require(Role.REVIEWER))]
Lead = Annotated[User, Depends(require(Role.LEAD))]
CurrentLogin = Annotated[Login, Depends(find_login)]
