"""Some faults upon rounds on both databases, and proof that the checks can fail: broken code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import postgresql_server
from tests.faults.rounds import sabotage
from tests.paths import ROOT

SUMS = ("lost", "doubled", "torn", "false_alarms", "missed")
MOST = 60
"""Faults until a break must have been noticed."""


def harness(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, the lines, and what went to standard error. A process of its own: it forks."""
    command = [sys.executable, "-m", "tests.faults.rounds.harness", "--folder", str(folder), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=280)
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()], run.stderr


@pytest.mark.slow
@pytest.mark.skipif(postgresql_server.programs() is None, reason="no PostgreSQL: initdb is not installed")
def test_some_faults_upon_rounds_lose_double_and_tear_nothing(tmp_path: Path) -> None:
    few = ("--faults", "3", "--postgresql-faults", "2", "--jobs", "1", "--struck", "close", "append")
    status, lines, errors = harness(tmp_path, *few)
    assert {name: lines[-1][name] for name in SUMS} == dict.fromkeys(SUMS, 0), errors
    assert list(lines[-1]) == ["faults", *SUMS]
    assert lines[-1]["faults"] >= 5
    assert status == 0, errors


@pytest.mark.slow
def test_broken_code_is_noticed(tmp_path: Path) -> None:
    kinds = ("batches",)
    _, lines, errors = harness(tmp_path, "--faults", str(MOST), "--seed", "1", "--sabotage", *kinds)
    figures = {line["metric"]: line["value"] for line in lines}
    assert set(figures) == {f"sabotage of {kind}: noticed" for kind in kinds}, (lines, errors)
    assert all(0 < value <= MOST for value in figures.values())
    assert set(kinds) < set(sabotage.KINDS)
