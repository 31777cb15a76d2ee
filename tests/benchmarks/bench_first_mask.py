"""Seconds from `gigamask annotate PHOTOS` to the link, to the first picture and its first mask, and to all photos.

    python tests/benchmarks/bench_first_mask.py FOLDER

The folder's photos are ingested into a new dataset, with an empty cache. Somebody in Chromium opens the link as soon as
it is printed and clicks into the middle of the picture as soon as it is shown. The photos have to be usable and all
different. Prints one JSON line per figure.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from json_lines import print_line
from playwright.sync_api import Page, sync_playwright

from storage.workspace.workspace import Workspace
from tests.browsers import ARGUMENTS
from tests.paths import ROOT


def main() -> None:
    photos = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
        options = ["--dataset", f"{folder}/dataset", "--cache", f"{folder}/cache", "--port", "0"]
        command = [sys.executable, "-m", "flows.cli", "annotate", str(photos), *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        watch = Watch(photos=sum(each.is_file() for each in photos.rglob("*")))
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stdout is not None
            link = server.stdout.readline().strip()
            watch.tell("link")
            work(page, link, watch)
            wait_for_all(f"{folder}/dataset", watch)
        finally:
            server.terminate()
            server.wait()
            browser.close()


@dataclass
class Watch:
    photos: int
    began: float = field(default_factory=time.monotonic)

    def tell(self, what: str) -> None:
        print_line("first_mask", what, round(time.monotonic() - self.began, 2), "s", photos=self.photos)


def work(page: Page, link: str, watch: Watch) -> None:
    """Click on the first picture, submit it, and click on the second one."""
    page.goto(link)
    for number, name in ((1, "first"), (2, "second")):
        page.wait_for_selector(f"html[data-task='{number}']", state="attached", timeout=120_000)
        watch.tell(f"{name} picture")
        box = page.locator("canvas.picture").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector(".choice", timeout=120_000)
        watch.tell(f"{name} mask")
        page.keyboard.press("Enter")
        page.wait_for_selector(".masks li")
        page.keyboard.press("Control+Enter")


def wait_for_all(dataset: str, watch: Watch) -> None:
    """Wait until every photo is a task."""
    with Workspace.open(f"{dataset}/workspace.sqlite") as workspace:
        (found,) = workspace.rounds.read_all()
        while len(workspace.rounds.tasks(found.round_id)) < watch.photos:
            time.sleep(0.2)
    watch.tell("all photos are tasks")


if __name__ == "__main__":
    main()
