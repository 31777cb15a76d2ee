"""Flows and their tasks: a command runs them as plain functions, or under a Prefect server that was named.

A flow run that nobody can look at is worth little, and a server of its own cost each command ten seconds, a database in
the user's home and a process that a kill left behind. So Prefect is imported where somebody looks: in the runs of
`gigamask serve` and of a work pool, and where --prefect-url or GIGAMASK_PREFECT_URL names a server.
"""

import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import wraps
from reprlib import Repr
from typing import ParamSpec, TypeVar

PREFECT_URL = "GIGAMASK_PREFECT_URL"
"""Environment variable with the URL of the Prefect server's API, such as http://head:4200/api."""
ANSWER_S = 3.0
"""Longest time that a Prefect server has to answer before a flow begins, in seconds."""
MAX_SHOWN = 1000
"""Largest number of characters that Prefect shows of one argument of a flow."""

_PASSWORD = re.compile(r"://[^/@\s']*@")

P = ParamSpec("P")
R = TypeVar("R")


def flow(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a flow, which is a flow run of Prefect wherever Prefect is in use.

    The arguments stay here: they are users' data, and a server refuses parameters above 512 KiB. It shows their
    beginnings.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not is_in_prefect():
                return function(*args, **kwargs)
            check_server()
            from prefect import flow as prefect_flow

            def run(arguments: list[str]) -> R:
                return function(*args, **kwargs)

            shown = [_shorten(each) for each in (*args, *kwargs.values())]
            return prefect_flow(name=name, description=function.__doc__)(run)(shown)

        return call

    return decorate


def task(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a task of a flow, which is a task run of Prefect wherever Prefect is in use."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not is_in_prefect():
                return function(*args, **kwargs)
            from prefect import task as prefect_task
            from prefect.cache_policies import NO_CACHE

            def run() -> R:
                return function(*args, **kwargs)

            return prefect_task(name=name, description=function.__doc__, cache_policy=NO_CACHE)(run)()

        return call

    return decorate


def is_in_prefect() -> bool:
    """Tell whether Prefect is in use: a server was named, or this is a flow run that Prefect started."""
    if os.environ.get(PREFECT_URL):
        return True
    context = sys.modules.get("prefect.context")  # not imported: then no flow of Prefect runs
    return context is not None and context.FlowRunContext.get() is not None


def use_prefect(url: str | None) -> None:
    """Run the flows of this process under the Prefect server at a URL; None for plain functions."""
    if url:
        os.environ[PREFECT_URL] = os.environ["PREFECT_API_URL"] = url.rstrip("/")


def check_server() -> None:
    """Check that the server answers, if one was named; Prefect itself would ask for minutes.

    Raises:
        ValueError: Nobody answers there.
    """
    url = os.environ.get(PREFECT_URL)
    if not url:
        return
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=ANSWER_S):
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):  # it wants a key, which Prefect's own settings hold
            return
        why: object = f"it says {error.code}"
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
    raise ValueError(
        f"--prefect-url {url}: no Prefect server answers ({why}); expected http://host:4200/api of "
        "`prefect server start`; without --prefect-url none is needed"
    )


def _shorten(value: object) -> str:
    """Return the beginning of a value's text, without the passwords of URLs."""
    short = Repr()
    short.maxlist, short.maxstring, short.maxother = 3, MAX_SHOWN, MAX_SHOWN
    return _PASSWORD.sub("://***@", short.repr(value))
