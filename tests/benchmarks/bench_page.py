"""The annotation page in Chromium: frames a second while panning, time to the first paint, and from click to mask.

    python tests/benchmarks/bench_page.py [--masks 10 100 500] [--seconds 4] [--clicks 40] [--decoding server browser]

A real server, with the seed model, gives out pictures of 2700 x 1500 px with prefilled masks; a headless Chromium
shows them on 1366 x 768 px without a GPU. Panning is one pointer event a frame, by a script in the page; clicks are
real ones. A click ends with the frame that shows its mask. `draw_ms` is the time that the page itself takes for a
frame, and `load` that of the machine. Bytes are those that came from the server, of the task that took most. Prints one
JSON line per metric.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from json_lines import print_line
from playwright.sync_api import Page, Request, sync_playwright

from stages.annotator.decoders import find_runtime
from storage import rle
from storage.workspace.records import GivenMask
from tests.browsers import ARGUMENTS
from tests.paths import PHOTOS
from tests.stages.annotator.web.page_site import PageSite, Person, make_site, middle

HEIGHT, WIDTH = 1500, 2700
SCREEN = {"width": 1366, "height": 768}
PAN = """async ([seconds, scale]) => {
  const canvas = document.querySelector("canvas.picture");
  const box = canvas.getBoundingClientRect();
  const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
  const send = (name, dx, dy) => canvas.dispatchEvent(new PointerEvent(name, {
    pointerId: 1, pointerType: "mouse", button: 1, buttons: 4, bubbles: true, clientX: x + dx, clientY: y + dy }));
  canvas.setPointerCapture = () => {};
  const deltaY = -Math.log(scale) / 0.002;
  canvas.dispatchEvent(new WheelEvent("wheel", { deltaY, clientX: x, clientY: y, cancelable: true }));
  const { Painter } = await import("/canvas/painter.js");
  const draw = Painter.prototype.draw;
  let drawMs = 0;
  Painter.prototype.draw = function () {
    const began = performance.now();
    draw.call(this);
    drawMs += performance.now() - began;
  };
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  await frame(); await frame();
  send("pointerdown", 0, 0);
  const times = [await frame()];
  drawMs = 0;
  while (times.at(-1) - times[0] < 1000 * seconds) {
    const turn = times.length / 25;
    send("pointermove", 160 * Math.sin(turn), 100 * Math.sin(1.3 * turn));
    times.push(await frame());
  }
  send("pointerup", 0, 0);
  Painter.prototype.draw = draw;
  return { times, drawMs: drawMs / (times.length - 1) };
}"""
WATCH = """() => {
  const status = document.querySelector(".status");
  const canvas = document.querySelector("canvas.picture");
  window.clickMs = [];
  let began = 0;
  canvas.addEventListener("pointerdown", (event) => { began = event.timeStamp; }, { capture: true });
  new MutationObserver(() => {
    if (!began || !status.textContent.startsWith("Enter")) return;
    const since = began;
    began = 0;
    requestAnimationFrame(() => setTimeout(() => window.clickMs.push(performance.now() - since)));
  }).observe(status, { childList: true, characterData: true, subtree: true });
}"""
NEXT = """() => new Promise((done) => {
  const root = document.documentElement;
  const before = root.dataset.task;
  let began = performance.now();
  const look = () => {
    if (root.dataset.task && root.dataset.task !== before) {
      return requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    }
    const keep = document.querySelector("dialog[open] button[value=keep]");
    if (keep) {
      began = performance.now();  // the prefilled masks are submitted as they are
      keep.click();
    }
    requestAnimationFrame(look);
  };
  look();
  const enter = new KeyboardEvent("keydown", { key: "Enter", ctrlKey: true, bubbles: true });
  document.querySelector("canvas.picture").dispatchEvent(enter);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--seconds", type=float, default=4, help="length of each pan")
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--decoding", nargs="+", default=["server", "browser"], help="places that decode the clicks")
    arguments = parser.parse_args()
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        sys.exit("bench_page needs Chromium (install the chromium package)")
    if "browser" in arguments.decoding and not find_runtime():
        sys.exit("onnxruntime-web is not there: run `make page`, which needs Node, or say --decoding server")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        site = start(Path(folder))
        try:
            browser = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
            ann = site.person(browser, "bench", viewport=SCREEN)
            for masks in arguments.masks:
                measure(ann, masks, arguments.seconds, arguments.clicks, arguments.decoding)
            browser.close()
        finally:
            site.stop()


def start(folder: Path) -> PageSite:
    photos = folder / "photos"
    photos.mkdir()
    for number, name in enumerate(("nuts/nuts_0.jpg", "nuts/nuts_1.jpg", "coco/coco_000000458756.jpg")):
        large = cv2.resize(cv2.imread(str(PHOTOS / name)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(photos / f"large_{number}.jpg"), large, [cv2.IMWRITE_JPEG_QUALITY, 88])
    site = make_site(folder, photos)
    site.start()
    return site


def measure(ann: Person, masks: int, seconds: float, clicks: int, places: Sequence[str]) -> None:
    """Print the figures of one number of masks."""
    ann.site.open_round("large_0", "large_1", "large_2", prefill=blobs(masks))
    finished: list[Request] = []

    def note(request: Request) -> None:
        finished.append(request)

    ann.context.on("requestfinished", note)
    page = ann.open()
    facts: dict[str, object] = {
        "load": round(os.getloadavg()[0], 1),
        "masks": masks,
        "picture": f"{WIDTH}x{HEIGHT}",
        "screen": f"{SCREEN['width']}x{SCREEN['height']}",
    }
    first = page.evaluate("performance.getEntriesByName('task shown')[0].startTime")
    print_line("page", "first_paint_of_the_page", first, "ms", **facts)
    for scale in (1, 4, 16):
        page.keyboard.press("0")
        panned = page.evaluate(PAN, [seconds, scale])
        times = np.diff(panned["times"])
        more = {"p95_frame_ms": round(float(np.quantile(times, 0.95)), 1), "draw_ms": round(panned["drawMs"], 2)}
        print_line("page", "frames_while_panning", 1000 / times.mean(), "frames/s", zoom=scale, **more, **facts)
    for place in places:
        page.select_option(".decoding select", place)
        if place == "browser":
            page.locator(".decoding[data-state=ready]").wait_for(timeout=60_000)
        times = np.array(click_times(page, clicks))
        p50, p95 = (float(np.quantile(times, each)) for each in (0.5, 0.95))
        print_line("page", "click_to_mask_p95", p95, "ms", decoding=place, p50=round(p50, 1), clicks=clicks, **facts)
    page.wait_for_timeout(2000)  # the next two pictures are there
    print_line("page", "first_paint_of_the_next_task", page.evaluate(NEXT), "ms", **facts)
    ann.context.remove_listener("requestfinished", note)
    print_bytes(finished, facts)
    page.close()


def print_bytes(finished: Sequence[Request], facts: dict[str, object]) -> None:
    """Print what came from the server for one task, and for one answer to a click."""
    kinds = {r"images/(\d+)$": "picture", r"images/(\d+)/embedding": "embeddings", r"tasks/(\d+)/line": "masks"}
    for kind, name in kinds.items():
        by_task: dict[str, int] = {}
        for request in finished:
            if found := re.search(kind, request.url.split("?")[0]):
                by_task[found[1]] = by_task.get(found[1], 0) + request.sizes()["responseBodySize"]
        if by_task:
            print_line("page", f"bytes_of_a_task_{name}", max(by_task.values()), "bytes", **facts)
    answers = [each.sizes()["responseBodySize"] for each in finished if each.url.endswith("/predict")]
    if answers:
        print_line("page", "bytes_of_an_answer", float(np.mean(answers)), "bytes", **facts)


def click_times(page: Page, clicks: int) -> Sequence[float]:
    """Click at many places, and drop each mask; the first click, which may wait for the encoder, does not count."""
    page.keyboard.press("0")
    page.evaluate(WATCH)
    rng = np.random.default_rng(7)
    for number in range(clicks + 1):
        dx, dy = rng.uniform(-1, 1, 2) * (300, 150)
        page.mouse.click(*middle(page, float(dx), float(dy)))
        while page.evaluate("window.clickMs.length") <= number:  # the page's policy forbids wait_for_function
            page.wait_for_timeout(20)
        page.keyboard.press("Escape")
        page.locator(".choices").wait_for(state="hidden")
    return list(page.evaluate("window.clickMs"))[1:]


def blobs(count: int) -> list[GivenMask]:
    """Make masks with wavy outlines, of 20 to 150 px radius, all over the picture."""
    rng = np.random.default_rng(11)
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    made = []
    for number in range(count):
        radius = 20 * 7.5 ** rng.random()
        waves = sum(rng.uniform(0, 0.15) * np.sin(times * angles + rng.uniform(0, 6)) for times in (2, 3, 5, 9))
        at = np.array([rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)])
        corners = at + radius * (1 + waves)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(mask_HW, [corners.astype(np.int32)], 1)
        if mask_HW.any():
            iou = float(rng.uniform(0.6, 1))
            made.append(GivenMask(mask=f"p-{number}", rle=rle.encode(mask_HW), model_id="seed", predicted_iou=iou))
    return made


if __name__ == "__main__":
    main()
