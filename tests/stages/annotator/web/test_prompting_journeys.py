"""Scribbles, the wand and the preview under the pointer; what counts are the pixels in the database."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from engine.interactive.batched import along_scribble
from storage.workspace.records import Kind
from tests.stages.annotator.web.page_site import NEXT_FRAME, QUICK_MS, PageSite, Person, click, middle, wait_until_saved
from tests.stages.annotator.web.places import FLATS, Places, prefilled, rectangle_HW, stored, stored_masks

Make = Callable[..., Person]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]

LEFT_HW, RIGHT_HW, HOLE_HW = (rectangle_HW(*FLATS[name]) for name in ("left", "right", "hole"))


CORNER = """() => {
  const canvas = document.querySelector("canvas.picture");
  const { left, top } = canvas.getBoundingClientRect();
  const { e, f } = canvas.getContext("2d").getTransform();
  return [left + e, top + f];
}"""
"""Place of the picture's corner on the screen, where an image pixel is a CSS pixel."""
NOW_S = "(performance.timeOrigin + performance.now()) / 1000"
STOP_CLOCK = """async () => {
  window.stoppedMs = performance.now();
  performance.now = () => window.stoppedMs;
  const { Painter } = await import("/canvas/painter.js");
  const draw = Painter.prototype.draw;
  Painter.prototype.draw = function () {
    draw.call(this);
    window.isPreviewed = Boolean(this.overlay.preview);
  };
}"""
"""Has the page's clock move only when a test adds to `stoppedMs`, and tells whether a frame had a preview."""


def operations(ann: Person, page: Page) -> list[Any]:
    """All operations of the line, as the database has them."""
    wait_until_saved(page)
    with ann.site.workspace() as workspace:
        return workspace.operations.read(ann.task_id(page), ann.name)


def prompted(page: Page, act: Callable[[], None]) -> Any:
    """Do something that prompts the model; return the request's body and the answer."""
    with page.expect_response("**/predict", timeout=60_000) as answered:
        act()
    expect(page.locator(".status")).to_contain_text("Enter accepts")
    return answered.value.request.post_data_json, answered.value.json()


def test_scribbles_are_prompts_and_each_continues_the_answer_before(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("scribble-ann")
    page = ann.open()
    places = Places.open(page)
    page.keyboard.press("l")
    first, answer = prompted(page, lambda: places.drag((60, 60), (160, 60)))
    (scribble,) = first["scribbles"]
    assert (scribble["positive"], first["continued"], first["mask"]) == (True, None, None)
    assert scribble["points"][0] == [60.5, 60.5]
    assert scribble["points"][-1] == [160.5, 60.5]

    # With Shift it takes away; what the model had in mind before goes with it
    page.keyboard.down("Shift")
    second, last = prompted(page, lambda: places.drag((60, 150), (160, 150)))
    page.keyboard.up("Shift")
    assert [each["positive"] for each in second["scribbles"]] == [True, False]
    assert second["continued"] == {"prediction_id": answer["prediction_id"], "candidate": 0}
    assert last["basis"] == "logits"
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=1)
    (added,) = [each for each in operations(ann, page) if each.kind == Kind.ADD]
    assert added.payload["rle"]["counts"] == last["candidates"][0]["rle"]["counts"]
    assert mask_HW.any()
    assert added.payload["clicks"] == 2
    assert added.payload["prompts"] == [
        {"scribble": each["points"], "positive": each["positive"]} for each in second["scribbles"]
    ]

    # The model got clicks along the strokes: the same mask as for these
    clicks = [
        {"x": at.x, "y": at.y, "positive": at.positive}
        for at in along_scribble([tuple(point) for point in scribble["points"]], positive=True)
    ]
    assert len(clicks) == 6
    image_id = site.images["places"][0]
    same = page.evaluate(
        """async ([path, body]) => {
          const { Api } = await import("/app/api.js");
          const api = new Api();
          await api.me();
          return api.post(path, body);
        }""",
        [f"/api/images/{image_id}/predict", {"clicks": clicks}],
    )
    assert same["candidates"][0]["rle"] == answer["candidates"][0]["rle"]


def test_a_scribble_is_drawn_undone_and_dropped_by_keys(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("scribble-keys")
    page = ann.open()
    page.keyboard.press("l")
    for key in ("ArrowRight", "f", "Shift+ArrowRight", "Shift+ArrowRight", "Escape"):  # dropped before its end
        page.keyboard.press(key)
    page.keyboard.press("f")
    page.keyboard.press("Shift+ArrowDown")
    body, answer = prompted(page, lambda: page.keyboard.press("f"))
    (scribble,) = body["scribbles"]
    (x0, y0), (x1, y1) = scribble["points"]
    assert (x0, y0 % 1) == (x1, 0.5)
    assert y1 > y0
    page.keyboard.press("g")
    page.keyboard.press("Shift+ArrowRight")
    prompted(page, lambda: page.keyboard.press("g"))
    page.keyboard.press("Control+z")
    page.keyboard.press("Enter")
    stored(ann, page, revision=1)
    (added,) = [each for each in operations(ann, page) if each.kind == Kind.ADD]
    assert added.payload["prompts"] == [{"scribble": scribble["points"], "positive": True}]
    assert added.payload["rle"]["counts"] == answer["candidates"][0]["rle"]["counts"]


class Wand:
    """The wand on the picture "flats"."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.keyboard.press("9")
        page.evaluate(NEXT_FRAME)
        self.left, self.top = page.evaluate(CORNER)
        page.keyboard.press("y")

    def place(self, column: float, row: float) -> tuple[float, float]:
        return self.left + column, self.top + row

    def pick(self, column: float, row: float, **options: Any) -> None:
        with self.page.expect_response("**/wand"):
            self.page.mouse.click(*self.place(column, row), **options)


def test_the_wand_takes_flat_regions_and_takes_them_away(site: PageSite, person: Make) -> None:
    site.open_round("flats")
    ann = person("wand-ann")
    page = ann.open()
    wand = Wand(page)

    # With the tolerance as it is, 12 grey levels, the right region counts as well; narrower, it does not
    wand.pick(30, 40)
    expect(page.locator(".status")).to_contain_text("tolerance 12")
    with page.expect_response("**/wand") as asked:
        page.keyboard.press("[")
    assert asked.value.request.post_data_json["tolerance"] == 8
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=1)
    np.testing.assert_array_equal(mask_HW, LEFT_HW & ~HOLE_HW)

    # Another mask: the hole, the regions around it by a wider wand, and the hole taken away again
    wand.pick(50, 70)
    wand.pick(150, 50)
    with page.expect_response("**/wand"):
        page.mouse.move(*wand.place(150, 50))
        page.keyboard.down("Alt")
        page.mouse.wheel(0, -100)
        page.keyboard.up("Alt")
    expect(page.locator(".status")).to_contain_text("tolerance 11")
    wand.pick(50, 70, button="right")
    page.keyboard.press("Enter")
    masks = stored_masks(ann, page, revision=2)
    np.testing.assert_array_equal(masks[1], (LEFT_HW | RIGHT_HW) & ~HOLE_HW)
    strokes = [each.payload["strokes"] for each in operations(ann, page) if each.kind == Kind.ADD]
    assert strokes == [1, 3]  # another tolerance is no stroke of its own


def test_the_wand_works_on_a_selected_mask_and_by_keys(site: PageSite, person: Make) -> None:
    site.open_round("flats", prefill=prefilled(FLATS["left"]))
    ann = person("wand-keys")
    page = ann.open()
    wand = Wand(page)
    page.keyboard.press("j")
    page.mouse.move(*wand.place(49, 70))
    page.keyboard.press("ArrowRight")
    with page.expect_response("**/wand"):
        page.keyboard.press("g")
    expect(page.locator(".status")).to_contain_text("Enter accepts")
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=1)
    np.testing.assert_array_equal(mask_HW, LEFT_HW & ~HOLE_HW)

    # Nothing to take away from: the page says so
    page.keyboard.press("Escape")
    wand.pick(30, 40)
    page.keyboard.press("Control+z")
    page.mouse.click(*wand.place(50, 70), button="right")
    expect(page.locator("#says")).to_contain_text("There is no mask yet")


def be_known(page: Page) -> None:
    """Click until the page knows how quickly the server answers; the limit for previews is far above that in tests."""
    for number in range(3):
        click(page, 10 * number, 0)
        page.keyboard.press("Escape")


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait for a condition, and let the page go on meanwhile."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)


def set_quick(page: Page, limit_ms: int) -> None:
    """Set the time of a click up to which previews are asked for."""
    page.evaluate("ms => import('/app/settings.js').then((found) => found.saveSettings({ quickMs: ms }))", limit_ms)


def rest(page: Page, dx: float, dy: float) -> None:
    """Move the pointer, and let it rest until the mask of a click there is shown."""
    with page.expect_response("**/predict"):
        page.mouse.move(*middle(page, dx, dy))
    page.wait_for_timeout(400)


def picture(page: Page) -> bytes:
    """The canvas, as the screen shows it."""
    return page.locator("canvas.picture").screenshot()


def rest_and_look(page: Page) -> bytes:
    """Let the pointer rest until the picture has changed, and return it."""
    before = picture(page)
    rest(page, -60, 40)
    until(page, lambda: picture(page) != before)
    return picture(page)


def test_a_resting_pointer_shows_the_mask_of_a_click_and_leaves_no_trace(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = person("preview-ann", preview=True)
    page = ann.open()
    asked: list[str] = []
    page.on("request", lambda request: request.url.endswith("/predict") and asked.append(request.url))

    # Nothing is asked before the server is known to be quick
    page.mouse.move(*middle(page, 40, 20))
    page.wait_for_timeout(500)
    assert asked == []
    be_known(page)
    asked.clear()

    # The picture changes, and the time of resting is nobody's work
    shown, began_s = rest_and_look(page), page.evaluate(NOW_S)
    page.wait_for_timeout(2500)
    ended_s = page.evaluate(NOW_S)

    # A key turns it off: the picture is as before, and nothing is asked, now and after a reload
    page.keyboard.press("Shift+H")
    expect(page.get_by_label("Preview")).not_to_be_checked()
    until(page, lambda: picture(page) != shown)
    page.mouse.move(*middle(page, -20, 40))
    page.wait_for_timeout(500)
    assert len(asked) == 1

    # A real click is the only prompt
    click(page, 20, 10)
    page.keyboard.press("Enter")
    task = ann.task_id(page)
    stored(ann, page, revision=1)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#says")).to_contain_text("Submitted", timeout=30_000)
    with site.workspace() as workspace:
        found = workspace.operations.read(task, ann.name)
    (added,) = [each for each in found if each.kind != Kind.ACTIVITY]
    assert (added.payload["clicks"], len(added.payload["prompts"])) == (1, 1)
    inputs = [at for each in found if each.kind == Kind.ACTIVITY for at, _ in each.payload["inputs"]]
    assert [at for at in inputs if began_s + 0.1 < at < ended_s] == [] != inputs

    site.open_round("desk")
    page.reload()
    expect(page.get_by_label("Preview")).not_to_be_checked()


def test_previews_are_asked_one_at_a_time_and_not_of_a_slow_server(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = person("preview-once", preview=True)
    page = ann.open()
    be_known(page)

    # While an answer is awaited the pointer rests at two other places; the last of them is asked about, alone
    held: list[Route] = []
    page.route("**/predict", lambda route: held.append(route))
    page.mouse.move(*middle(page, -60, 40))
    until(page, lambda: len(held) == 1)
    for dx in (-30, 20):
        page.mouse.move(*middle(page, dx, 40))
        page.wait_for_timeout(180)
        assert len(held) == 1
    held[0].continue_()
    until(page, lambda: len(held) == 2)
    first, last = (each.request.post_data_json["clicks"][0] for each in held)
    assert last["x"] > first["x"]

    # That answer takes longer than a click should: nothing more is asked for a while
    set_quick(page, 1)
    with page.expect_event("requestfinished", lambda request: request.url.endswith("/predict")):
        held[1].continue_()
    page.evaluate(NEXT_FRAME)
    page.wait_for_timeout(500)
    set_quick(page, QUICK_MS)
    page.mouse.move(*middle(page, -30, 40))
    page.wait_for_timeout(500)
    assert len(held) == 2


def test_the_preview_fades_in_unless_motion_is_reduced(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = person("preview-fades", preview=True)
    page = ann.open()
    be_known(page)
    page.evaluate(STOP_CLOCK)
    without = picture(page)

    # Half of the time of a fade, all of it, and long after it
    page.mouse.move(*middle(page, -30, 40))
    until(page, lambda: bool(page.evaluate("isPreviewed")))
    seen = []
    for passed_ms in (80, 80, 1000):
        page.evaluate("passedMs => stoppedMs += passedMs", passed_ms)
        page.evaluate(NEXT_FRAME)
        seen.append(picture(page))
    half, whole, later = seen
    assert without != half != whole == later

    # With reduced motion the first frame shows all of it
    page.mouse.move(0, 0)  # beside the picture
    until(page, lambda: not page.evaluate("isPreviewed"))
    page.emulate_media(reduced_motion="reduce")
    page.mouse.move(*middle(page, -30, 40))
    until(page, lambda: bool(page.evaluate("isPreviewed")))
    assert picture(page) == whole

    # The keyboard's cursor rests as well
    with page.expect_response("**/predict"):
        page.keyboard.press("ArrowRight")


def test_a_mask_is_accepted_by_its_button_and_by_enter_after_a_suggestion_was_pressed(
    site: PageSite, person: Make
) -> None:
    site.open_round("places")
    ann = person("button-ann")
    page = ann.open()
    places = Places.open(page)
    prompted(page, lambda: places.click(100, 100))
    page.locator("button.choice").nth(1).click()
    expect(page.locator("canvas.picture")).to_be_focused()
    page.keyboard.press("Enter")
    assert len(stored_masks(ann, page, revision=1)) == 1

    prompted(page, lambda: places.click(200, 60))
    open_mask = page.get_by_role("group", name="The open mask")
    open_mask.get_by_role("button", name="Accept").click()
    assert len(stored_masks(ann, page, revision=2)) == 2
    expect(open_mask).to_be_hidden()
