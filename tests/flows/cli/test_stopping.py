"""Ctrl+C and SIGTERM end every command in one line, with the status of the signal, and leave no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.cli.stopping import list_descendants
from storage.dataset import Dataset
from tests.flows.cli.test_annotate import processes_of_session
from tests.paths import ROOT
from tests.small_dataset import small_dataset
from tests.stages.conftest import encoded, picture
from tests.tiny_network import save_tiny_model

LINE = "stopped; run the same command again to continue"
ENDLESS = (
    "SELECT sum(a.area_px + b.area_px) FROM masks a, masks b, masks c, masks d, masks e, masks f, masks g, masks h"
)
BLOCK = """
import os, signal, sys, time
from flows.cli.stopping import stopping
with stopping("stopped"):
    {before}
    print("ready", flush=True)
    {during}
"""


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def assert_nothing_is_left(session: int) -> None:
    until = time.monotonic() + 60
    while processes_of_session(session) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes_of_session(session) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_query_that_would_never_end_is_stopped_in_one_line(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    small_dataset(tmp_path / "data").fold()
    with start(tmp_path, "-m", "flows.cli", "query", "--dataset", "data", ENDLESS) as command:
        while not list_descendants(command.pid):  # the process of the query itself
            assert command.poll() is None, command.communicate()
            time.sleep(0.1)
        os.killpg(command.pid, number)
        out, errors = command.communicate(timeout=120)
    assert (command.returncode, out, errors.splitlines()[-1:]) == (status, "", [LINE])
    assert "Traceback" not in errors
    assert_nothing_is_left(command.pid)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "to_all"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, True), (signal.SIGTERM, 143, False)],
)
def test_masks_that_are_being_made_are_stopped_in_one_line_and_harm_nothing(
    tmp_path: Path, number: signal.Signals, status: int, to_all: bool
) -> None:
    """Ray has handlers of its own; a terminal and a cgroup signal its servers as well."""
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        (tmp_path / "photos" / f"{seed}.png").write_bytes(encoded(picture(seed), "PNG"))
    arguments = ["-m", "flows.cli", "run", "photos", "--dataset", "data", "--model", str(save_tiny_model(tmp_path))]
    with start(tmp_path, *arguments) as command:
        assert command.stderr is not None
        lines = []
        for line in command.stderr:
            lines.append(line)
            if line.startswith("masks: "):
                break
        (os.killpg if to_all else os.kill)(command.pid, number)
        _, rest = command.communicate(timeout=200)
    assert (command.returncode, rest.splitlines()[-1:]) == (status, [LINE]), (lines, rest)
    assert_nothing_is_left(command.pid)
    assert Dataset.open(tmp_path / "data").maintenance.verify().faults == ()


@pytest.mark.parametrize(
    ("before", "during"),
    [
        pytest.param("pass", "time.sleep(600)", id="nothing in the way"),
        pytest.param(
            "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))",
            "time.sleep(600)",
            id="a library's handler that exits with another status",
        ),
        pytest.param(
            "sys.setswitchinterval(60); signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))",
            "time.sleep(600)",
            id="a library's handler that exits before another thread runs",
        ),
        pytest.param(
            "signal.signal(signal.SIGTERM, lambda number, frame: None)",
            "while True: time.sleep(1)",
            id="a library's handler that goes on",
        ),
    ],
)
def test_a_signal_ends_the_block_whoever_handles_it(tmp_path: Path, before: str, during: str) -> None:
    with start(tmp_path, "-c", BLOCK.format(before=before, during=during)) as block:
        assert block.stdout is not None
        assert block.stdout.readline() == "ready\n"
        block.terminate()
        _, errors = block.communicate(timeout=120)
    assert (block.returncode, errors) == (143, "stopped\n")


def test_a_signal_to_a_forked_child_does_not_stop_its_parent(tmp_path: Path) -> None:
    during = (
        "child = os.fork() or time.sleep(600)\n    os.kill(child, signal.SIGTERM)\n    print(os.waitpid(child, 0)[1])"
    )
    with start(tmp_path, "-c", BLOCK.format(before="pass", during=f"{during}\n    time.sleep(1)")) as block:
        out, errors = block.communicate(timeout=120)
    assert (block.returncode, out, errors) == (0, f"ready\n{int(signal.SIGTERM)}\n", "")
