"""The picture whose pixels say where they are, on the screen: what a click must hit, and where to click."""

import math
import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Page, expect

from storage import rle
from storage.workspace.fold import TaskState
from storage.workspace.records import GivenMask
from tests.stages.annotator.web.page_site import Person, wait_until_saved

WIDTH, HEIGHT = 256, 192
"""Size of the picture "places": red is the column, green the row, blue whether their sum is odd."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """A page on which one image pixel is one CSS pixel; works before anything is drawn over the picture."""

    page: Page
    left: float
    top: float

    @classmethod
    def open(cls, page: Page) -> "Places":
        page.keyboard.press("9")
        box = page.locator("canvas.picture").bounding_box()
        assert box is not None
        at = (box["x"] + math.floor(box["width"] / 2), box["y"] + math.floor(box["height"] / 2))
        found = pixel_under(page, *at)
        assert found is not None
        column, row = found
        return cls(page=page, left=at[0] - column, top=at[1] - row)

    def screen(self, column: float, row: float) -> tuple[float, float]:
        return self.left + column, self.top + row

    def click(self, column: float, row: float, **options: Any) -> None:
        self.page.mouse.click(*self.screen(column, row), **options)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.screen(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.screen(*end), steps=6)
        self.page.mouse.up()

    def rectangle(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Make a mask with the polygon tool; its corners lie between pixels, so its pixels are known."""
        masks = self.page.locator(".masks li")
        before = masks.count()
        self.page.keyboard.press("p")
        for corner in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
            self.click(*corner)
        self.page.keyboard.press("Enter")
        self.page.keyboard.press("Enter")
        expect(masks).to_have_count(before + 1)


def pixel_under(page: Page, x: float, y: float) -> tuple[int, int] | None:
    """Column and row of the image pixel that the screen shows at a place in CSS pixels; None on a line between two."""
    ratio = page.evaluate("devicePixelRatio")
    screen = cv2.imdecode(np.frombuffer(page.screenshot(scale="device"), np.uint8), cv2.IMREAD_COLOR)
    parity, row, column = (int(value) for value in screen[int(y * ratio), int(x * ratio)])
    return (column, row) if parity == (row + column) % 2 * 255 else None


def rectangle_HW(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask_HW = np.zeros((HEIGHT, WIDTH), bool)
    mask_HW[y0:y1, x0:x1] = True
    return mask_HW


FLATS = {"left": (20, 30, 100, 150), "right": (100, 30, 180, 150), "hole": (40, 60, 70, 90)}
"""Regions of the picture "flats", as x0, y0, x1, y1; `hole` lies in `left`."""


def flat_regions() -> np.ndarray:
    """The picture "flats": grey levels of 40 around, of 120 left, of 130 right, and of 200 in the hole; uint8 BGR."""
    picture_HW3 = np.full((HEIGHT, WIDTH, 3), 40, dtype=np.uint8)
    for name, level in (("left", 120), ("right", 130), ("hole", 200)):
        x0, y0, x1, y1 = FLATS[name]
        picture_HW3[y0:y1, x0:x1] = level
    return picture_HW3


def prefilled(*boxes: tuple[int, int, int, int]) -> list[GivenMask]:
    """Prefilled masks named p-0, p-1, ...; each a rectangle x0, y0, x1, y1 of the picture."""
    return [
        GivenMask(mask=f"p-{number}", rle=rle.encode(rectangle_HW(*box)), model_id="seed", predicted_iou=0.9)
        for number, box in enumerate(boxes)
    ]


def stored(ann: Person, page: Page, revision: int) -> TaskState:
    """State of the line as the server's database has it, once that many operations have arrived there."""
    task = ann.task_id(page)
    deadline = time.monotonic() + 60
    while (state := ann.state(task)).revision < revision:
        assert time.monotonic() < deadline, f"revision {state.revision} of {revision} after 60 seconds"
        time.sleep(0.05)
    wait_until_saved(page)
    assert (state.revision, state.ignored) == (revision, 0)
    return state


def stored_masks(ann: Person, page: Page, revision: int) -> list[np.ndarray]:
    """Masks of `stored`, bool [H, W] each."""
    return [rle.decode(mask.rle) for mask in stored(ann, page, revision).masks]
