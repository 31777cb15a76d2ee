"""Ten everyday tasks on the annotation page in Chromium: keys, clicks and pointer travel that each one takes.

    python tests/benchmarks/bench_everyday.py

A real server with the seed model gives out a picture of 256 x 192 px; the page counts the keys and presses that reach
it, and the way of the pointer between presses, in CSS pixels on a screen of 1366 x 768. A combination such as Ctrl and
Enter is one key; Ctrl held for a click is none. Each task ends with a check of what the page shows. Prints one JSON
line per task.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from json_lines import print_line
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browsers import ARGUMENTS
from tests.stages.annotator.web.page_site import PageSite, Person, make_site
from tests.stages.annotator.web.places import HEIGHT, WIDTH, Places, prefilled

SCREEN = {"width": 1366, "height": 768}
COUNT = """() => {
  window.effort = { keys: 0, clicks: 0, travel_px: 0 };
  let last = null;
  addEventListener("keydown", (event) => {
    if (!["Control", "Shift", "Alt"].includes(event.key)) effort.keys++;
  }, { capture: true });
  addEventListener("pointerdown", (event) => {
    effort.clicks++;
    if (last) effort.travel_px += Math.hypot(event.clientX - last.x, event.clientY - last.y);
    last = { x: event.clientX, y: event.clientY };
  }, { capture: true });
  addEventListener("pointerup", (event) => {
    effort.travel_px += Math.hypot(event.clientX - last.x, event.clientY - last.y);
    last = { x: event.clientX, y: event.clientY };
  }, { capture: true });
}"""
TEN = [(10 + 48 * column, 10 + 60 * row, 40 + 48 * column, 50 + 60 * row) for row in range(2) for column in range(5)]


def main() -> None:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        sys.exit("bench_everyday needs Chromium (install the chromium package)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        photos = Path(folder) / "photos"
        photos.mkdir()
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        places_BGR = np.stack([(rows + columns) % 2 * 255, rows, columns], axis=-1).astype(np.uint8)
        cv2.imwrite(str(photos / "places.png"), places_BGR)
        cv2.imwrite(str(photos / "other.png"), places_BGR[:, ::-1])
        site = make_site(Path(folder), photos)
        site.start()
        try:
            browser = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
            for number, (name, task) in enumerate(TASKS.items()):
                measure(site, browser, f"ann-{number}", name, task)
            browser.close()
        finally:
            site.stop()


def measure(site: PageSite, browser: Browser, who: str, name: str, task: Callable[[Page, Places], None]) -> None:
    site.open_round("places", "other", prefill=prefilled(*TEN))
    ann: Person = site.person(browser, who, viewport=SCREEN)
    page = ann.open()
    page.keyboard.press("h")
    places = Places.open(page)
    page.keyboard.press("h")
    page.evaluate(COUNT)
    task(page, places)
    effort = page.evaluate("effort")
    facts = {"task": name, "clicks": effort["clicks"], "travel_px": round(effort["travel_px"])}
    print_line("everyday", "keys", effort["keys"], "keys", **facts)
    ann.close()


@contextmanager
def holding(page: Page, key: str) -> Iterator[None]:
    page.keyboard.down(key)
    yield
    page.keyboard.up(key)


def masks(page: Page, count: int) -> None:
    expect(page.locator(".masks li")).to_have_count(count, timeout=60_000)


def first_mask(page: Page, places: Places) -> None:
    places.click(128, 160)
    page.keyboard.press("Enter")
    masks(page, 11)


def part_instead_of_whole(page: Page, places: Places) -> None:
    places.click(128, 160)
    expect(page.locator(".choices")).to_be_visible(timeout=60_000)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    masks(page, 11)


def bitten_edge(page: Page, places: Places) -> None:
    with holding(page, "Control"):
        places.click(20, 30)
    page.keyboard.press("b")
    places.drag((10, 20), (10, 40))
    page.keyboard.press("Enter")
    expect(page.locator(".origin.prefill_edited")).to_have_count(1)


def accept_ten(page: Page, places: Places) -> None:
    page.keyboard.press("n")
    for left in range(9, -1, -1):
        page.keyboard.press("a")
        expect(page.locator(".origin.undecided")).to_have_count(left)


def delete(page: Page, places: Places) -> None:
    with holding(page, "Control"):
        places.click(20, 30)
    page.keyboard.press("Delete")
    masks(page, 9)


def merge_two(page: Page, places: Places) -> None:
    with holding(page, "Control"):
        places.click(20, 30)
        places.click(70, 30)
    page.keyboard.press("m")
    masks(page, 9)


def undo_three(page: Page, places: Places) -> None:
    page.keyboard.press("n")
    for left in (9, 8, 7):
        page.keyboard.press("r")
        masks(page, left)
    page.evaluate("Object.assign(effort, { keys: 0, clicks: 0, travel_px: 0 })")
    for back in (8, 9, 10):
        page.keyboard.press("Control+z")
        masks(page, back)


def next_image(page: Page, places: Places) -> None:
    accept_ten(page, places)
    page.evaluate("Object.assign(effort, { keys: 0, clicks: 0, travel_px: 0 })")
    task = page.locator("html").get_attribute("data-task")
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task]:not([data-task='{task}'])").wait_for(state="attached", timeout=60_000)


def skip(page: Page, places: Places) -> None:
    task = page.locator("html").get_attribute("data-task")
    page.keyboard.press("Control+Shift+S")
    page.keyboard.press("Enter")  # the first reason
    page.locator(f"html[data-task]:not([data-task='{task}'])").wait_for(state="attached", timeout=60_000)


def find_missing(page: Page, places: Places) -> None:
    page.keyboard.press("w")
    page.keyboard.press("f")  # a click where the key has led
    expect(page.locator(".choices")).to_be_visible(timeout=60_000)


TASKS: dict[str, Callable[[Page, Places], None]] = {
    "first mask of an object": first_mask,
    "a part instead of the whole": part_instead_of_whole,
    "mend a bitten edge": bitten_edge,
    "accept ten prefilled masks": accept_ten,
    "delete a mask": delete,
    "merge two masks": merge_two,
    "undo three steps": undo_three,
    "submit, next picture": next_image,
    "skip with a reason": skip,
    "find what is missing": find_missing,
}


if __name__ == "__main__":
    main()
