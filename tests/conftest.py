"""What all tests share: the command as a user runs it, which tests are slow, and which share a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Gigamask = Callable[..., subprocess.CompletedProcess[str]]

SLOW_FIXTURES = {"gigamask", "s3_server", "ray_on_this_machine", "nodes", "browser"}
"""A test that uses one of them starts a process, a server, a cluster or a browser: it is slow without being marked."""

SHARED_SERVERS = ("gigamask", "s3_server")
"""Session fixtures worth starting once: all tests with the same one run in the same process under pytest-xdist."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow; under pytest-xdist keep the tests of a file or of a server together, the slow ones first."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & SLOW_FIXTURES:
            item.add_marker(pytest.mark.slow)
        servers = [name for name in SHARED_SERVERS if name in fixtures]
        if item.get_closest_marker("xdist_group") is None:
            group = servers[0] if servers else item.path.relative_to(ROOT).as_posix()
            item.add_marker(pytest.mark.xdist_group(group))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print why each test failed that passed when it was run again, so that none is overlooked."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed at first: {report.nodeid}")
        terminalreporter.line(report.longreprtext)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium for the tests of one file: two at once in a process, or one beside asyncio, are errors."""
    from tests.browsers import open_chromium  # a machine without Playwright runs the other tests

    yield from open_chromium()


@pytest.fixture(scope="session")
def gigamask() -> Gigamask:
    """`gigamask("query", "SELECT 1", cwd=folder)` runs it: the finished process, stdout and stderr as text."""

    def run(*arguments: str, cwd: Path, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.run(
            command, cwd=cwd, stdin=stdin, capture_output=True, text=True, env=environment, timeout=280
        )

    return run
