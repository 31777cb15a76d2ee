"""Pictures of every page, dark and light, on a small and on a large screen: to be looked at before a release.

    python tests/benchmarks/page_pictures.py FOLDER

A real server and real people in Chromium fill the pages: one annotates, one reviews, one leads, one comes too late.
Photos: nuts by Chengwei Zhang, MIT licence.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from storage import rle
from storage.workspace.records import GivenMask, RoundSpec, TaskSpec
from tests.browsers import ARGUMENTS
from tests.paths import PHOTOS, ROOT
from tests.stages.annotator.web.late_work import paint, tolerant, work_late
from tests.stages.annotator.web.page_site import PageSite, click, free_port, keep_undecided, make_site, wait_until_saved
from tests.stages.annotator.web.test_tutorial_journey import Learner

SIZES = ((1366, 768), (2560, 1440))
THEMES = ("dark", "light")
WARM_CLICKS = 6
"""Number of clicks before the one that is shown, so that the figures beside it are not those of the first alone."""
COFFEE = (566, 190)
"""Pixel of the tutorial's picture that its first step asks for: column and row."""
NUTS = ("nuts_0", "nuts_1")
SETTLE_MS = 400
"""Time that a page has to draw itself anew after a change of its size, in milliseconds."""


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as work, sync_playwright() as driver:
        photos = Path(work) / "photos"
        photos.mkdir()
        for name in NUTS:
            shutil.copy(PHOTOS / "nuts" / f"{name}.jpg", photos)
        site = make_site(Path(work), photos)
        site.start()
        browser = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
        try:
            show_people(site, browser, folder)
            show_demo(browser, folder)
        finally:
            browser.close()
            site.stop()


def take(page: Page, folder: Path, name: str) -> None:
    """Take the pictures of one page as it is now, in every size and theme."""
    for width, height in SIZES:
        for theme in THEMES:
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=folder / f"{name}-{theme}-{width}.png")
    print(name, flush=True)


def show_people(site: PageSite, browser: Browser, folder: Path) -> None:
    open_round(site)
    show_work(site, browser, folder)
    lea = site.person(browser, "boss", "lead")
    for name, wait_for in (("review", ".answers"), ("rounds", "#page h1"), ("lead", ".card")):
        page = lea.open(f"/#{name}", wait_for=wait_for)
        take(page, folder, name)
        if name == "review":
            page.locator(".tabs button").nth(1).click()
            expect(page.locator("h1")).to_have_text("Are all objects masked?")
            take(page, folder, "review-picture")
        page.close()
    lea.close()
    nobody = site.person(browser, "nobody")
    nobody.context.clear_cookies()
    page = nobody.context.new_page()
    page.goto("/")
    page.wait_for_selector("form")
    take(page, folder, "login")
    nobody.close()
    show_merge(site, browser, folder)


def show_work(site: PageSite, browser: Browser, folder: Path) -> None:
    """Show the task page with prefilled masks, suggestions and keys, then the empty queue and the tutorial."""
    ann = site.person(browser, "ann")
    page = ann.open()
    expect(page.locator(".masks li")).not_to_have_count(0)
    page.keyboard.press("j")
    take(page, folder, "task-prefilled")
    task = ann.task_id(page)
    page.keyboard.press("Control+Enter")
    page.locator("dialog[open]").wait_for()
    take(page, folder, "undecided")
    keep_undecided(page)
    page.locator(f"html[data-task]:not([data-task='{task}'])").wait_for(state="attached")
    page.set_viewport_size({"width": 1280, "height": 720})
    page.wait_for_timeout(SETTLE_MS)
    for _ in range(WARM_CLICKS):
        click(page, -9, 72)
        page.keyboard.press("Escape")
    click(page, -9, 72)
    page.locator("#says p").wait_for(state="detached", timeout=20_000)
    take(page, folder, "task")
    page.keyboard.press("?")
    take(page, folder, "keys")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#page h1")).to_have_text("Nothing is left to annotate")
    expect(page.locator("#says")).to_contain_text("1 mask", timeout=30_000)
    page.locator("#says p").wait_for(state="detached", timeout=20_000)
    take(page, folder, "queue")
    show_tutorial(page, folder)
    ann.close()


def show_tutorial(page: Page, folder: Path) -> None:
    """Show the second step of the tutorial, after what the first one asks for."""
    page.goto("/#tutorial")
    page.wait_for_selector(".coach")
    page.set_viewport_size({"width": 1280, "height": 720})
    page.wait_for_timeout(SETTLE_MS)
    Learner(page=page).click(*COFFEE)
    expect(page.locator("html")).to_have_attribute("data-step", "part")
    expect(page.locator(".choice:visible")).to_have_count(3)
    take(page, folder, "tutorial")


def show_merge(site: PageSite, browser: Browser, folder: Path) -> None:
    """Show late work beside the work of another browser."""
    site.open_round("nuts_0")
    late, elsewhere = (tolerant(site.person(browser, "late")) for _ in range(2))
    page = late.open()
    paint(page, -80)
    wait_until_saved(page)
    work_late(site, late, page, elsewhere=elsewhere)
    late.context.set_offline(False)
    page.wait_for_selector(".merge, .sheet", timeout=60_000)
    take(page, folder, "merge")
    late.close()
    elsewhere.close()


def show_demo(browser: Browser, folder: Path) -> None:
    with demo(str(PHOTOS / "nuts" / "nuts_0.jpg")) as url:
        page = browser.new_page(base_url=url)
        page.goto("/")
        page.wait_for_selector("canvas.picture")
        page.get_by_role("button", name="Everything").click()
        page.wait_for_selector(".masks li", timeout=120_000)
        page.locator("#says p").wait_for(state="detached", timeout=20_000)
        take(page, folder, "demo")
        page.close()
    with demo() as url:
        page = browser.new_page(base_url=url)
        page.goto("/")
        page.wait_for_selector(".notice")
        take(page, folder, "demo-empty")
        page.close()


@contextmanager
def demo(*photo: str) -> Iterator[str]:
    """Run a demo during the block, and give its address."""
    command = [sys.executable, "-m", "flows.cli", "demo", *photo, "--port", str(free_port())]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def open_round(site: PageSite) -> None:
    """Open a round of one picture with prefilled masks, those that people drew, and one without."""
    people = json.loads((PHOTOS / "nuts" / "nuts_1.json").read_text())
    height, width = people["image"]["height"], people["image"]["width"]
    prefill = tuple(
        GivenMask(
            mask=f"p-{number}",
            rle=rle.from_coco(each["segmentation"]["counts"], height=height, width=width),
            model_id="seed",
            predicted_iou=0.7 + 0.025 * (number % 11),
        )
        for number, each in enumerate(people["annotations"])
    )
    tasks = []
    for name, given in (("nuts_1", prefill), ("nuts_0", ())):
        image_id, image_height, image_width = site.images[name]
        tasks.append(TaskSpec(image_id=image_id, height=image_height, width=image_width, prefill=given))
    with site.workspace() as workspace:
        guidelines = "Mask every fruit and nut, the most prominent first. Leave out shadows and the tray."
        spec = RoundSpec(stage="semi_automatic", name="Nuts", guidelines=guidelines, tasks=tuple(tasks))
        workspace.rounds.open(spec)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s")
