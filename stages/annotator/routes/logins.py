"""Log in, log out, and who is logged in."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import Field

from stages.annotator.access import CurrentLogin, Login
from stages.annotator.schemas import Body, Done, ShortText, View
from stages.annotator.server import Server, TheServer

router = APIRouter(prefix="/api", tags=["logins"])


class PasswordBody(Body):
    """Name and password of an account."""

    name: ShortText
    """Name of the account."""
    password: ShortText
    """Password of the account."""


class LinkBody(Body):
    """One-time token of the link that `gigamask annotate` prints."""

    token: ShortText
    """Token of the link."""


class LoginView(View):
    """Who is logged in."""

    name: str
    """Name of the account."""
    role: str
    """Role of the account: annotator, reviewer or lead."""
    mode: str = Field(description="laptop: one account without a password; team: accounts.")
    csrf_token: str = Field(description="Value of the header X-CSRF-Token of every request that changes something.")


class HealthView(View):
    """Whether the server answers, and how much waits."""

    healthy: bool
    """True: the server answers."""
    models: list[str] = Field(description="Ids of the models, the default first.")
    prompts_waiting: int
    """Number of prompts that wait to be decoded."""
    images_waiting: int
    """Number of images that wait to be encoded."""


@router.post("/login")
def log_in(body: PasswordBody, request: Request, response: Response, server: TheServer) -> LoginView:
    """Log in with name and password; the session cookie is set."""
    server.access.count_attempt(body.name, _address(request))
    return _begin(server, server.access.log_in_by_password(body.name, body.password), response)


@router.post("/login/link")
def log_in_by_link(body: LinkBody, request: Request, response: Response, server: TheServer) -> LoginView:
    """Exchange the one-time token of a laptop's link for the session cookie."""
    server.access.count_attempt("link", _address(request))
    return _begin(server, server.access.log_in_by_link(body.token), response)


@router.post("/logout")
def log_out(login: CurrentLogin, response: Response, server: TheServer) -> Done:
    """End the login and remove the cookie."""
    server.access.log_out(login, response)
    return Done()


@router.get("/me")
def read_me(login: CurrentLogin, server: TheServer) -> LoginView:
    """Tell who is logged in, with the CSRF token."""
    return _view(server, login)


@router.get("/health")
def read_health(server: TheServer) -> HealthView:
    """Tell whether the server answers; needs no login."""
    sessions = server.sessions
    return HealthView(
        healthy=True,
        models=sessions.models.ids(),
        prompts_waiting=sessions.waiting,
        images_waiting=sessions.preparing,
    )


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _begin(server: Server, login: Login, response: Response) -> LoginView:
    server.access.set_cookie(response, login)
    return _view(server, login)


def _view(server: Server, login: Login) -> LoginView:
    mode = server.access.config.mode
    return LoginView(name=login.user.name, role=login.user.role, mode=mode, csrf_token=login.csrf_token)
