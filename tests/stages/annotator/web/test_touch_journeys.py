"""Fingers and pens on the page, as Chromium's own input events; what counts are the pixels in the database."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.stages.annotator.web.page_site import NEXT_FRAME, PageSite, Person, keep_undecided, rows
from tests.stages.annotator.web.places import prefilled, rectangle_HW, stored, stored_masks

Make = Callable[..., Person]
Point = tuple[float, float]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]

MIN_TARGET_PX = 24
"""Smallest side of whatever is pressed, WCAG 2.2 AA."""
VIEW = """() => {
  const canvas = document.querySelector("canvas.picture");
  const { left, top } = canvas.getBoundingClientRect();
  const { a, e, f } = canvas.getContext("2d").getTransform();
  return [left + e, top + f, a];
}"""
SMALL_TARGETS = """(least) => [...document.querySelectorAll("button, a, input, select, summary, [role=option]")]
  .filter((each) => each.checkVisibility() && !each.matches(".unseen, [hidden]"))
  .map((each) => [each, (each.matches("input") && each.closest("label") || each).getBoundingClientRect()])
  .filter(([, { width, height }]) => width && (width < least || height < least))
  .map(([each, { width, height }]) => `${each.outerHTML.slice(0, 80)} ${width} x ${height}`)
"""


class Hand:
    """Fingers and a pen on one page, at places in image pixels."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.context.new_cdp_session(page)
        page.keyboard.press("9")

    def screen(self, point: Point) -> dict[str, float]:
        self.page.evaluate(NEXT_FRAME)
        left, top, scale = self.page.evaluate(VIEW)
        return {"x": left + scale * point[0], "y": top + scale * point[1]}

    def fingers(self, kind: str, *points: dict[str, float]) -> None:
        """Fingers as they are now on the screen; the first has the number 0."""
        touches = [{**point, "id": number} for number, point in enumerate(points)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def draw(self, start: Point, end: Point, *, hold_ms: int = 0) -> None:
        """Draw with one finger, after holding it still for a while."""
        begin, finish = self.screen(start), self.screen(end)
        self.fingers("touchStart", begin)
        self.page.wait_for_timeout(hold_ms)
        for step in range(1, 9):
            self.fingers("touchMove", {name: begin[name] + step / 8 * (finish[name] - begin[name]) for name in "xy"})
        self.fingers("touchEnd")

    def tap(self, point: Point, *, hold_ms: int = 0) -> None:
        self.fingers("touchStart", self.screen(point))
        self.page.wait_for_timeout(hold_ms)
        self.fingers("touchEnd")

    def pinch(self, start: tuple[Point, Point], end: tuple[Point, Point]) -> None:
        """Move two fingers from some places to others, which are where the picture's pixels were at first."""
        (one, other), (one_end, other_end) = [[self.screen(point) for point in points] for points in (start, end)]
        self.fingers("touchStart", one)
        self.fingers("touchMove", {"x": one["x"] + 6, "y": one["y"]})  # as the first finger comes down a bit earlier
        self.fingers("touchStart", one, other)
        for step in range(1, 9):
            moved = [
                {name: begin[name] + step / 8 * (finish[name] - begin[name]) for name in "xy"}
                for begin, finish in ((one, one_end), (other, other_end))
            ]
            self.fingers("touchMove", *moved)
        self.fingers("touchEnd", one_end)
        self.fingers("touchEnd")

    def pen(self, kind: str, point: Point, *, force: float = 0.5, button: str = "left") -> None:
        where = {**self.screen(point), "pointerType": "pen", "force": force, "button": button}
        held = {"buttons": 1 if button == "left" else 2} if kind != "mouseReleased" else {}
        self.session.send("Input.dispatchMouseEvent", {"type": kind, "clickCount": 1, **where, **held})


def open_with_touch(site: PageSite, person: Make, name: str, **options: Any) -> tuple[Person, Page]:
    site.open_round("places", **options)
    ann = person(name, has_touch=True)
    page = ann.open()
    page.evaluate("localStorage.setItem('gigamask settings', JSON.stringify({ brush: 1, preview: false }))")
    page.reload()
    page.wait_for_selector("canvas.picture")
    return ann, page


def test_one_finger_uses_the_tool_and_a_held_one_takes_away(site: PageSite, person: Make) -> None:
    ann, page = open_with_touch(site, person, "finger-ann")
    hand = Hand(page)
    page.locator("[data-act='tool:brush']").tap()
    hand.draw((40.5, 50.5), (80.5, 50.5))
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)

    # A tap clicks on the object, a held finger beside it
    page.locator("[data-act='tool:click']").tap()
    with page.expect_response("**/predict"):
        hand.tap((150.5, 100.5))
    expect(page.locator(".status")).to_contain_text("Enter accepts")
    with page.expect_response("**/predict") as answered:
        hand.tap((30.5, 150.5), hold_ms=600)
    clicks = answered.value.request.post_data_json["clicks"]
    assert [each["positive"] for each in clicks] == [True, False]
    assert [(int(each["x"]), int(each["y"])) for each in clicks] == [(150, 100), (30, 150)]

    # And a scribble
    page.locator("[data-act='tool:scribble']").tap()
    with page.expect_response("**/predict") as answered:
        hand.draw((60.5, 150.5), (160.5, 150.5), hold_ms=600)
    assert [each["positive"] for each in answered.value.request.post_data_json["scribbles"]] == [False]
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(2)
    masks = stored_masks(ann, page, revision=2)
    np.testing.assert_array_equal(masks[0], rectangle_HW(40, 50, 81, 51))


@pytest.mark.parametrize("tool", ["brush", "scribble", "box", "click"])
def test_two_fingers_pan_and_zoom_and_leave_no_mask(site: PageSite, person: Make, tool: str) -> None:
    ann, page = open_with_touch(site, person, f"pinch-{tool}")
    hand = Hand(page)
    page.locator(f"[data-act='tool:{tool}']").tap()
    before = page.evaluate(VIEW)
    hand.pinch(((100, 90), (140, 90)), ((60, 100), (220, 100)))
    page.evaluate(NEXT_FRAME)
    left, top, scale = page.evaluate(VIEW)
    assert scale / before[2] == pytest.approx(4, rel=0.2)
    middle = [before[0] + 140, before[1] + 100]  # between the fingers at the end
    assert [(middle[0] - left) / scale, (middle[1] - top) / scale] == pytest.approx([120, 90], abs=4)
    assert (rows(page), page.locator(".choice:visible").count()) == (0, 0)
    expect(page.locator("[data-act=undo]")).to_be_disabled()

    # One finger works again, on the pixel under it
    page.locator("[data-act='tool:click']").tap()
    with page.expect_response("**/predict") as answered:
        hand.tap((125.5, 80.5))
    (found,) = answered.value.request.post_data_json["clicks"]
    assert (int(found["x"]), int(found["y"])) == (125, 80)
    page.keyboard.press("Enter")
    stored(ann, page, revision=1)


def test_a_pen_draws_the_same_at_any_pressure_and_its_hand_may_rest(site: PageSite, person: Make) -> None:
    ann, page = open_with_touch(site, person, "pen-ann")
    hand = Hand(page)
    page.locator("[data-act='tool:brush']").tap()
    page.wait_for_timeout(100)
    for row, force in ((50.5, 0.1), (70.5, 1.0)):
        hand.pen("mousePressed", (40.5, row), force=force)
        hand.pen("mouseMoved", (60.5, row), force=force)
        palm = hand.screen((150, 150))
        hand.fingers("touchStart", palm)
        hand.fingers("touchMove", {"x": palm["x"] + 20, "y": palm["y"]})
        hand.pen("mouseMoved", (80.5, row), force=force)
        hand.fingers("touchEnd")
        hand.pen("mouseReleased", (80.5, row), force=0)
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=1)
    np.testing.assert_array_equal(mask_HW, rectangle_HW(40, 50, 81, 51) | rectangle_HW(40, 70, 81, 71))

    # A while after the pen has left, a finger draws again
    page.wait_for_timeout(1100)
    hand.draw((100.5, 20.5), (120.5, 20.5))
    page.keyboard.press("Enter")
    masks = stored_masks(ann, page, revision=2)
    np.testing.assert_array_equal(masks[1], rectangle_HW(100, 20, 121, 21))


def test_whatever_is_pressed_is_large_enough_for_a_finger(site: PageSite, person: Make) -> None:
    _, page = open_with_touch(site, person, "target-ann", prefill=prefilled((10, 10, 60, 60)))
    for size in ((1280, 720), (800, 500)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.keyboard.press("j")
        assert page.evaluate(SMALL_TARGETS, MIN_TARGET_PX) == [], size
        for keys in ("?", "Control+Shift+S"):
            page.keyboard.press(keys)
            page.locator("dialog[open]").wait_for()
            assert page.evaluate(SMALL_TARGETS, MIN_TARGET_PX) == []
            page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    keep_undecided(page)
    expect(page.locator("#says")).to_contain_text("Submitted", timeout=30_000)
    lea = person("target-lea", "lead")
    for name in ("rounds", "lead", "review"):
        page = lea.open(f"/#{name}", wait_for="#page h1")
        page.wait_for_timeout(300)
        assert page.evaluate(SMALL_TARGETS, MIN_TARGET_PX) == [], name
