"""The command as a user runs it: from photos to the open link."""

import http.cookiejar
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

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
        assert server.wait(60) in (0, 130)


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
