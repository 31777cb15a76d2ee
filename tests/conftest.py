"""The command as a user runs it, in its own process, for every test that needs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import ROOT

Gigamask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Prefect database for the whole session: making it takes longer than the tests that use it."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def gigamask(prefect_home: Path) -> Gigamask:
    """gigamask("query", "SELECT 1", cwd=folder) -> the finished process, its stdout and stderr as text."""

    def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(prefect_home)}
        command = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=280)

    return run
