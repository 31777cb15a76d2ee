"""The demo in a real browser: click, box, everything, a photo of one's own; nothing is stored."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

import gigamask
from storage import rle
from tests.paths import PHOTOS, ROOT
from tests.stages.annotator.web.page_site import click, drag, free_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]

NUCLEI = PHOTOS / "nuclei" / "nuc_815524d88283.png"
MAX_DIFFERENT_PX = 60
"""Most pixels, of 307,200, by which embeddings stored as fp16 may change a mask."""
DESK = PHOTOS / "coco" / "coco_000000458756.jpg"


@dataclass(kw_only=True)
class DemoSite:
    """A demo as its own process, whose every folder is watched."""

    folder: Path
    port: int = field(default_factory=lambda: free_port())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str) -> subprocess.Popen[str]:
        places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(self.folder))
        environment = os.environ | places | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "flows.cli", "demo", *options, "--port", str(self.port)]
        started = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True)
        assert started.stdout is not None
        assert started.stdout.readline().strip() == self.url
        return started


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoSite]:
    """A demo over a photo of a desk; at its end nothing may have been written."""
    site = DemoSite(folder=tmp_path_factory.mktemp("watched"))
    process = site.start(str(DESK))
    yield site
    process.terminate()
    process.wait(timeout=20)
    assert [path for path in site.folder.rglob("*") if not path.is_dir()] == []  # torch makes an empty folder


@pytest.fixture
def page(demo: DemoSite, browser: Browser) -> Iterator[Page]:
    """A visitor's browser, which may report no error."""
    problems: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 720}, base_url=demo.url)
    context.add_init_script("localStorage['gigamask decoding'] ??= 'server'")
    opened = context.new_page()
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: message.type == "error" and problems.append(message.text))
    opened.goto("/")
    opened.wait_for_selector("canvas.picture")
    yield opened
    context.close()
    assert [each for each in problems if "status of 422" not in each] == []  # the browser's note of a refused photo


def save_masks(page: Page, folder: Path) -> list[np.ndarray]:
    """Save the masks as a visitor does, and read the file."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save masks").click()
    download.value.save_as(folder / "masks.json")
    found = json.loads((folder / "masks.json").read_text())
    return [pixels(each["segmentation"]) for each in found["annotations"]]


def pixels(found: dict[str, Any]) -> np.ndarray:
    height, width = found["size"]
    return rle.decode(rle.from_coco(found["counts"], height=height, width=width))


def test_clicks_and_boxes_give_the_masks_of_the_python_api(page: Page, tmp_path: Path) -> None:
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = []
    page.on(
        "response",
        lambda answer: answer.url.endswith("/predict") and asked.append((answer.request.post_data_json, answer.json())),
    )
    click(page)
    expect(page.locator(".choice")).to_have_count(3)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)
    page.keyboard.press("x")
    with page.expect_response("**/predict"):
        drag(page, (-120, -90), (140, 110))
    expect(page.locator(".status")).to_contain_text("accepts")
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(2)
    saved = save_masks(page, tmp_path)

    model, image_HW3 = gigamask.load_model("seed"), gigamask.read_photo(DESK)
    opened = gigamask.make_segmenter(model).open(image_HW3)
    assert len(asked) == len(saved) == 2
    for (body, answer), mask_HW, chosen in zip(asked, saved, (1, 0), strict=True):
        shown = [pixels(each["rle"]) for each in answer["candidates"]]
        assert np.array_equal(shown[chosen], mask_HW)
        clicks = tuple(gigamask.Click(**each) for each in body["clicks"])
        box_xyxy = tuple(body["box"]) if body["box"] else None
        (expected,) = opened.segment([gigamask.ObjectPrompt(clicks=clicks, box_xyxy=box_xyxy)])
        for each_HW in shown:
            different = min(int((each_HW != np.asarray(other_HW)).sum()) for other_HW in expected.masks_MHW)
            assert different <= MAX_DIFFERENT_PX


def test_everything_is_what_the_python_api_finds_and_is_accepted_and_undone(page: Page, tmp_path: Path) -> None:
    click(page)
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)
    with page.expect_response("**/everything", timeout=120_000):
        page.get_by_role("button", name="Everything").click()
    expected = gigamask.generate_masks(gigamask.load_model("seed"), gigamask.read_photo(DESK)).masks
    expect(page.locator(".masks li")).to_have_count(len(expected) + 1)  # what was made by hand stays
    assert len(expected) > 3
    found = save_masks(page, tmp_path)
    for mask in expected:
        assert any(np.array_equal(rle.decode(mask.rle), each_HW) for each_HW in found)
    page.keyboard.press("n")
    page.keyboard.press("a")
    expect(page.locator(".origin.undecided")).to_have_count(len(expected) - 1)
    page.keyboard.press("Control+z")
    expect(page.locator(".origin.undecided")).to_have_count(len(expected))


def test_a_visitor_shows_a_photo_of_their_own_and_is_told_what_cannot_be_shown(page: Page, demo: DemoSite) -> None:
    chooser = page.locator("input[type=file]")
    chooser.set_input_files({"name": "note.txt", "mimeType": "text/plain", "buffer": b"no photo at all"})
    expect(page.locator("#says")).to_contain_text("cannot be used")
    chooser.set_input_files({"name": "huge.jpg", "mimeType": "image/jpeg", "buffer": bytes(12_000_001)})
    expect(page.locator("#says")).to_contain_text("too large")
    before = page.locator("html").get_attribute("data-photo")
    chooser.set_input_files(str(NUCLEI))
    page.locator(f"html[data-photo]:not([data-photo='{before}'])").wait_for(state="attached")
    click(page)
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)


def test_a_photo_that_the_demo_has_forgotten_is_sent_again(browser: Browser, tmp_path: Path) -> None:
    site = DemoSite(folder=tmp_path)
    process = site.start()
    context = browser.new_context(base_url=site.url)
    context.add_init_script("localStorage['gigamask decoding'] ??= 'server'")
    try:
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_role("heading", name="gigamask demo")).to_be_visible()
        page.locator("input[type=file]").set_input_files(str(NUCLEI))
        page.wait_for_selector("canvas.picture")
        click(page)
        page.keyboard.press("Enter")
        process.kill()
        process.wait()
        process = site.start()
        with page.expect_response("**/api/photos"):
            page.mouse.click(700, 300)
        expect(page.locator(".choice")).not_to_have_count(0)
        page.keyboard.press("Enter")
        expect(page.locator(".masks li")).to_have_count(2)
    finally:
        context.close()
        process.terminate()
        process.wait(timeout=20)
