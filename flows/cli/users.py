"""The commands below `gigamask users`: accounts of a team."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.checks import workspace_place
from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri, WorkspacePlace
from flows.words import place_options

if TYPE_CHECKING:
    from storage.workspace.workspace import Workspace

UserName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]
RoleName = Literal["annotator", "reviewer", "lead"]


@dataclass(frozen=True, kw_only=True)
class Account:
    """One account, as `gigamask users list` shows it."""

    name: str
    role: str
    has_password: bool
    disabled: bool
    paused: bool


def users_add(
    name: UserName,
    role: Annotated[RoleName, typer.Option("--role", help="What the user may do.")] = "annotator",
    no_password: Annotated[bool, typer.Option("--no-password", help="For a program; nobody can log in.")] = False,
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
) -> None:
    """Add a user. The password is asked for, or read as one line from stdin."""
    password = None if no_password else _password()
    with _open(dataset, workspace) as opened:
        opened.users.add(name, role, password=password)
    print(f"{name} is {role}")


def users_list(
    dataset: DatasetUri = DEFAULT_DATASET, workspace: WorkspacePlace = None, as_json: AsJson = False
) -> None:
    """List the users."""
    from flows.cli.output import print_rows

    with _open(dataset, workspace) as opened:
        rows = [
            Account(
                name=user.name,
                role=user.role,
                has_password=user.has_password,
                disabled=user.disabled,
                paused=user.paused,
            )
            for user in opened.users.read_all()
        ]
    print_rows(rows, as_json, empty=f"no user; `gigamask users add NAME {place_options(dataset, workspace)}` adds one")


def users_disable(
    name: UserName,
    undo: Annotated[bool, typer.Option("--undo", help="Open the account again.")] = False,
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
) -> None:
    """Close an account and end its logins; nothing is deleted."""
    with _open(dataset, workspace) as opened:
        opened.users.disable(name, disabled=not undo)
    print(f"{name} is {'enabled' if undo else 'disabled'}")


def users_pause(
    name: UserName,
    undo: Annotated[bool, typer.Option("--undo", help="Give tasks again.")] = False,
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
) -> None:
    """Stop giving a user new tasks; tasks that the user holds can be finished."""
    with _open(dataset, workspace) as opened:
        opened.users.pause(name, paused=not undo)
    print(f"{name} gets {'tasks again' if undo else 'no new tasks'}")


def users_password(name: UserName, dataset: DatasetUri = DEFAULT_DATASET, workspace: WorkspacePlace = None) -> None:
    """Set a user's password and end the user's logins. It is asked for, or read as one line from stdin."""
    with _open(dataset, workspace) as opened:
        opened.users.set_password(name, _password())
    print(f"{name} has a new password")


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\n")


def _open(dataset: str, workspace: str | None) -> "Workspace":
    from storage.workspace.workspace import Workspace

    return Workspace.open(workspace_place(dataset, workspace))
