"""Accounts of crews of simulated annotators: each crew holds its own, and those of crews that were killed are closed.

close what was left -> take the first free names -> new passwords -> (the crew works, its leases are extended) -> closed

An account is held by a lease in the workspace, so that of several crews one gets it, on whatever machine they run.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count

from storage.errors import NotFound, StoreError
from storage.workspace.records import Role
from storage.workspace.workspace import Workspace

PREFIX = "simulated-"
"""Beginning of the names of the accounts that simulated annotators have."""
LEASE_S = 30.0
"""Seconds that a crew holds an account after it last said that it works."""
BEATS_PER_LEASE = 4
"""Number of times that a lease is extended before it would run out."""
_NAME = re.compile(re.escape(PREFIX) + r"\d+")


def is_account_lease(job: str) -> bool:
    """Tell whether a job of the workspace's firings is the lease of an account, and no job of the engine."""
    return _NAME.fullmatch(job) is not None


@contextmanager
def open_accounts(workspace: Workspace, number: int, *, lease_s: float = LEASE_S) -> Iterator[Mapping[str, str]]:
    """Hold accounts with new passwords, by name, and close them at the end, with those that killed crews left open."""
    _close_left_over(workspace)
    crew, tokens = secrets.token_hex(8), dict[str, str]()
    ended = threading.Event()
    keeping = threading.Thread(target=_keep, args=(workspace, tokens, lease_s, ended), daemon=True)
    try:
        for each in count(1):
            if len(tokens) == number:
                break
            name = f"{PREFIX}{each}"
            token = workspace.firings.take(name, crew, _owner(), lease_s=lease_s)
            if token is not None:  # else another crew holds it
                tokens[name] = token
        keeping.start()
        yield {name: _open(workspace, name) for name in tokens}
    finally:
        ended.set()
        if keeping.ident is not None:
            keeping.join()
        for name, token in tokens.items():
            _close(workspace, name, token)
        _close_left_over(workspace)


def _open(workspace: Workspace, name: str) -> str:
    """Open an account, and return its new password."""
    password = secrets.token_urlsafe(24)
    try:
        workspace.users.get(name)
    except NotFound:
        workspace.users.add(name, Role.ANNOTATOR, password=password)
    else:
        workspace.users.set_password(name, password)
        workspace.users.disable(name, disabled=False)
    return password


def _close(workspace: Workspace, name: str, token: str) -> None:
    """Close an account and give it back, unless another crew holds it by now."""
    if not workspace.firings.extend(token):
        return
    if name in {user.name for user in workspace.users.read_all() if not user.disabled}:
        workspace.users.disable(name)
    workspace.firings.end(token, {})


def _close_left_over(workspace: Workspace) -> None:
    """Close the accounts of crews that were killed: open ones that crews held, and none holds now."""
    is_open = {user.name for user in workspace.users.read_all() if not user.disabled}
    held_once = {each.job for each in workspace.firings.read_all() if is_account_lease(each.job)}
    for name in sorted(is_open & held_once):
        token = workspace.firings.take(name, f"closing {secrets.token_hex(8)}", _owner())
        if token is not None:
            _close(workspace, name, token)


def _keep(workspace: Workspace, tokens: Mapping[str, str], lease_s: float, ended: threading.Event) -> None:
    """Extend leases until `ended` is set; where the database does not answer, the next beat tries again."""
    while not ended.wait(lease_s / BEATS_PER_LEASE):
        for token in tokens.values():
            try:
                workspace.firings.extend(token, lease_s=lease_s)
            except StoreError:
                break


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
