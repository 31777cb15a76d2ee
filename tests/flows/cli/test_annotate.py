"""The command as a user runs it: from photos to the open link."""

import http.client
import http.cookiejar
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from flows.cli.photos import FIRST_PHOTOS
from storage.dataset import Dataset
from storage.workspace.workspace import Workspace
from tests.conftest import Gigamask
from tests.paths import ROOT
from tests.stages.conftest import encoded, picture
from tests.tiny_network import save_tiny_model


@pytest.mark.slow
def test_one_command_goes_from_photos_to_an_open_link_and_again_to_what_is_new(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    model = save_tiny_model(tmp_path)
    for number in range(2):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encoded(picture(number), "PNG"))
        log_in_and_stop(tmp_path, model)
        assert Dataset.open(tmp_path / "data").query("SELECT count(*) AS n FROM images")["n"].to_pylist() == [
            number + 1
        ]
        with Workspace.open(tmp_path / "data" / "workspace.sqlite") as workspace:
            (found,) = workspace.rounds.read_all()
            assert len(workspace.rounds.tasks(found.round_id)) == number + 1


@pytest.mark.slow
def test_the_page_opens_after_the_first_photos_and_the_others_follow(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(FIRST_PHOTOS + 3):
        (tmp_path / "photos" / f"{number:02}.png").write_bytes(encoded(picture(number), "PNG"))
    (tmp_path / "photos" / "00.jpg").write_bytes(b"no photo")
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    options = ["--dataset", "data", "--port", "0", "--model", str(save_tiny_model(tmp_path)), "--cache", "cache"]
    command = [sys.executable, "-m", "flows.cli", "annotate", "photos", *options, "--open"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BROWSER": str(browser)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, env=environment, **pipes) as server:
        try:
            assert server.stdout is not None
            assert server.stderr is not None
            link = server.stdout.readline().strip()
            said: list[str] = []
            while not said or "ingest:" not in said[-1]:
                said.append(server.stderr.readline())
                assert said[-1], said
            assert (tmp_path / "opened").read_text().strip() == link
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(60) in (0, 130)
    added = [int(count) for count in re.findall(r"round 'photos': (\d+) images more", "".join(said))]
    assert added == [FIRST_PHOTOS - 1, 4]  # one of the first is no photo
    assert f"ingest: {FIRST_PHOTOS + 3} images, 1 rejects (1 not_an_image)" in said[-1]
    with Workspace.open(tmp_path / "data" / "workspace.sqlite") as workspace:
        (found,) = workspace.rounds.read_all()
        assert len(workspace.rounds.tasks(found.round_id)) == FIRST_PHOTOS + 3


def log_in_and_stop(folder: Path, model: Path) -> None:
    """Run `gigamask annotate`, open its link, claim a task, and stop it as Ctrl+C does."""
    options = ["--dataset", "data", "--port", "0", "--model", str(model), "--cache", "cache"]
    command = [sys.executable, "-m", "flows.cli", "annotate", "photos", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            link = server.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/link\?token=\S{32}", link)
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
            page = browser.open(link)
            assert "token" not in page.url
            me = json.load(browser.open(f"{page.url}api/me"))
            claim = urllib.request.Request(f"{page.url}api/tasks/claim", b"{}", {"X-CSRF-Token": me["csrf_token"]})
            claim.add_header("Content-Type", "application/json")
            assert len(json.load(browser.open(claim))) == 1
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(10) == 130


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "what_goes_on"),
    [
        (signal.SIGTERM, 143, "nothing"),
        (signal.SIGINT, 130, "nothing"),
        (signal.SIGTERM, 143, "half a request"),
        (signal.SIGINT, 130, "a database that is locked"),
        (signal.SIGTERM, 143, "images encoded ahead"),
    ],
)
def test_a_signal_ends_the_server_in_one_line_within_ten_seconds(
    tmp_path: Path, number: signal.Signals, status: int, what_goes_on: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_bytes(encoded(picture(0), "PNG"))
    options = ["--dataset", "data", "--port", "0", "--cache", "cache", "--model", str(save_tiny_model(tmp_path))]
    options += ["--workers", "1"] if what_goes_on == "images encoded ahead" else []
    command = [sys.executable, "-m", "flows.cli", "annotate", "photos", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,
        ) as server,
        ExitStack() as at_work,
    ):
        assert server.stdout is not None
        link = server.stdout.readline().strip()
        with urllib.request.urlopen(urllib.parse.urljoin(link, "/api/health"), timeout=60):
            pass  # it serves
        begin(what_goes_on, link, tmp_path, at_work)
        began = time.monotonic()
        server.send_signal(number)
        try:
            assert server.wait(60) == status
        finally:
            server.kill()
        assert time.monotonic() - began < 10
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[lines.index(AT_WORK) + 1 :][-1:] == ["stopped; the same command continues"]
    assert not any("Traceback" in line for line in lines)
    if what_goes_on == "nothing":
        assert lines[lines.index(AT_WORK) + 1 :] == ["stopped; the same command continues"]
    until = time.monotonic() + 5
    while processes_of_session(server.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes_of_session(server.pid) == []


AT_WORK = "open this link in a browser on this machine; it works once"


def begin(what: str, link: str, folder: Path, at_work: ExitStack) -> None:
    """Give a server something to do that the signal meets."""
    address = urllib.parse.urlsplit(link)
    if what == "half a request":
        connection = at_work.enter_context(socket.create_connection((address.hostname, address.port)))
        connection.sendall(b"POST /api/login/link HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.5)
    elif what == "a database that is locked":
        locked = sqlite3.connect(folder / "data" / "workspace.sqlite", isolation_level=None)
        at_work.callback(locked.close)
        locked.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=wait_for, args=(link,), daemon=True)
        waiting.start()
        time.sleep(1)
        assert waiting.is_alive()
    elif what == "images encoded ahead":
        until = time.monotonic() + 120
        while "ahead: 1 images to encode" not in (folder / "log").read_text():
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(3)  # in the middle of starting Ray


def wait_for(link: str) -> None:
    """Ask for an answer that does not come."""
    with suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(link, timeout=60)


def processes_of_session(leader: int) -> list[str]:
    """Command lines of the processes that a session's leader left behind."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " ")[:200])
    return found


def test_wrong_use_is_refused_before_anything_starts(gigamask: Gigamask, tmp_path: Path) -> None:
    for arguments, message in [
        (["--dataset", "nowhere"], "no dataset there"),
        (["--host", "0.0.0.0"], "--allow-no-accounts"),
        (["missing.jpg"], "missing.jpg: no such file"),
        (["--model", "gone"], "unknown model 'gone'"),
    ]:
        done = gigamask("annotate", *arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
