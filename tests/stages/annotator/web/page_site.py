"""The annotation server as its own process, and people with browsers in front of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from stages.annotator.access import COOKIE
from storage.dataset import Dataset
from storage.workspace.fold import TaskState
from storage.workspace.records import GivenMask, Role, RoundSpec, TaskSpec
from storage.workspace.workspace import Workspace
from tests.paths import ROOT

START_S = 90
QUICK_MS = 60_000
"""Time of a click up to which pages of tests ask for previews: however slow the machine is, in milliseconds."""
SIZE = {"width": 1280, "height": 720}
NEXT_FRAME = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Waits in the page until what was asked for has been drawn."""


@dataclass(kw_only=True)
class PageSite:
    """One dataset with a server in front of it, which can be killed and started again."""

    folder: Path
    images: dict[str, tuple[int, int, int]]
    """Id, height and width of each image, by the name of its photo."""
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    def workspace(self) -> Workspace:
        return Workspace.open(self.dataset / "workspace.sqlite")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = [sys.executable, "-m", "flows.cli", "annotate", "--dataset", str(self.dataset), "--team"]
        options = ["--port", str(self.port), "--cache", str(self.folder / "cache")]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self.is_healthy():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/health", timeout=2) as answer:
                return bool(json.load(answer)["healthy"])
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the server without any chance to tidy up."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)

    def open_round(self, *photos: str, prefill: Sequence[GivenMask] = ()) -> str:
        """Open a round over some photos and cancel those before it."""
        tasks = []
        for photo in photos:
            image_id, height, width = self.images[photo]
            tasks.append(TaskSpec(image_id=image_id, height=height, width=width, prefill=tuple(prefill)))
        with self.workspace() as workspace:
            for each in workspace.rounds.read_all():
                if each.state == "open":
                    workspace.rounds.cancel(each.round_id)
            spec = RoundSpec(stage="assisted_manual", name="Journey", guidelines="Mask things.", tasks=tuple(tasks))
            return workspace.rounds.open(spec).round_id

    def person(
        self,
        browser: Browser,
        name: str,
        role: str = "annotator",
        *,
        decoding: str = "server",
        preview: bool = False,
        newcomer: bool = False,
        **options: Any,
    ) -> "Person":
        """A person with an account, logged in, in a browser of their own, with clicks decoded where `decoding` says.

        Previews are off unless asked for, so that every request for a mask is that of a click. A newcomer is shown the
        hint at the tutorial.
        """
        with self.workspace() as workspace:
            known = {user.name: user for user in workspace.users.read_all()}
            if name not in known:
                workspace.users.add(name, Role(role))
            elif known[name].paused:
                workspace.users.pause(name, paused=False)
            token = workspace.users.log_in(name, seconds=3600)
        context = browser.new_context(**{"viewport": SIZE, "base_url": self.url, **options})
        context.add_cookies([{"name": COOKIE, "value": token, "url": self.url}])
        context.add_init_script(f"localStorage['gigamask decoding'] ??= '{decoding}'")
        if not newcomer:
            context.add_init_script("localStorage['gigamask welcomed'] ??= 'yes'")
        settings = json.dumps({"preview": preview, "quickMs": QUICK_MS})
        context.add_init_script(f"localStorage['gigamask settings'] ??= '{settings}'")
        return Person(site=self, name=name, context=context)


@dataclass(kw_only=True)
class Person:
    """Somebody at a browser."""

    site: PageSite
    name: str
    context: BrowserContext
    problems: list[str] = field(default_factory=list)
    """Messages that the browser's console should not have."""
    expected: str = ""
    """Beginning of messages that may be there; empty for none."""

    def open(self, path: str = "/", *, wait_for: str = "canvas.picture") -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.note(message.text))
        unanswered: dict[int, str] = {}
        page.on("request", lambda request: unanswered.update({id(request): request.url}))
        for end in ("requestfinished", "requestfailed"):
            page.on(end, lambda request: unanswered.pop(id(request), None))
        page.goto(path)
        try:
            page.wait_for_selector(wait_for, timeout=120_000)
        except PlaywrightTimeout as late:
            shows = page.locator("body").inner_text()
            log = (self.site.folder / "server.log").read_text()[-2000:]
            raise AssertionError(
                f"no {wait_for}; the page shows {shows!r}; unanswered {[*unanswered.values()]}; server {log}"
            ) from late
        return page

    def note(self, message: str) -> None:
        """Note an error of the browser's console."""
        if not (self.expected and message.startswith(self.expected)):
            self.problems.append(message)

    def task_id(self, page: Page) -> int:
        """Id of the task on the page."""
        html = page.locator("html[data-task]")
        html.wait_for(state="attached")
        return int(html.get_attribute("data-task"))

    def state(self, task_id: int) -> TaskState:
        """Masks of this person's line, as the server's database has them."""
        with self.site.workspace() as workspace:
            return workspace.operations.state(task_id, self.name)

    def close(self) -> None:
        """Close the browser; a claim that it sent before takes no task of the next test's round."""
        self.context.close()
        with self.site.workspace() as workspace:
            workspace.users.pause(self.name)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


def make_site(folder: Path, photos: Path) -> PageSite:
    """Make a dataset of photos; the server is not started yet."""
    from stages.ingest.ingest import ingest_photos

    dataset = Dataset.create(folder / "dataset")
    ingest_photos([photos], dataset)
    dataset.fold()
    rows = dataset.query("SELECT image_id, height, width, source FROM images").to_pylist()
    images = {Path(row["source"]).stem: (row["image_id"], row["height"], row["width"]) for row in rows}
    site = PageSite(folder=folder, images=images)
    with site.workspace() as workspace:
        workspace.users.add("lea", Role.LEAD)
        workspace.users.set_password("lea", "correct horse battery")
    return site


def middle(page: Page, dx: float = 0, dy: float = 0) -> tuple[float, float]:
    """A place on the picture's canvas, from the middle of what is not covered, in CSS pixels."""
    box, tools, status = (page.locator(name).bounding_box() for name in ("canvas.picture", ".toolbar", ".status"))
    left, right = tools["x"] + tools["width"], box["x"] + box["width"]
    return (left + right) / 2 + dx, (box["y"] + status["y"]) / 2 + dy


def click(page: Page, dx: float = 0, dy: float = 0, **options: Any) -> None:
    """Click on the picture, and wait for the model's answer."""
    with page.expect_response("**/predict", timeout=60_000):
        page.mouse.click(*middle(page, dx, dy), **options)
    expect(page.locator(".status")).not_to_have_text("…")


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag between two places, each from the middle of the canvas."""
    page.mouse.move(*middle(page, *start))
    page.mouse.down()
    page.mouse.move(*middle(page, *end), steps=8)
    page.mouse.up()


def wait_until_saved(page: Page, timeout: float = 30_000) -> None:
    expect(page.locator(".saved")).to_have_attribute("data-state", "sent", timeout=timeout)
    expect(page.locator(".saved")).to_have_attribute("data-unsent", "0", timeout=timeout)


def undo(page: Page, masks: int = 1, *, presses: int | None = None) -> None:
    """Take back masks that were each made by one act: the acceptance, then the act."""
    for _ in range(presses or 2 * masks):
        page.keyboard.press("Control+z")


def redo(page: Page, masks: int = 1, *, presses: int | None = None) -> None:
    """Do again what `undo` took back."""
    for _ in range(presses or 2 * masks):
        page.keyboard.press("Control+Shift+Z")


def keep_undecided(page: Page) -> None:
    """Answer the question about undecided masks: they are submitted as they are."""
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Enter")


def rows(page: Page) -> int:
    """Number of masks in the list."""
    return page.locator(".masks li").count()
