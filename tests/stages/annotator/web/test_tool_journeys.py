"""Every tool of the page, in a real browser against a real server; what counts are the pixels in the database."""

import math
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from storage import rle
from storage.workspace.records import Kind
from tests.stages.annotator.web.page_site import PageSite, Person, click, middle, redo, undo, wait_until_saved
from tests.stages.annotator.web.places import (
    HEIGHT,
    WIDTH,
    Places,
    pixel_under,
    prefilled,
    rectangle_HW,
    stored,
    stored_masks,
)

Make = Callable[..., Person]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]


def payloads(ann: Person, page: Page) -> list[Any]:
    """What the database has about each operation that changed a mask."""
    wait_until_saved(page)
    with ann.site.workspace() as workspace:
        found = workspace.operations.read(ann.task_id(page), ann.name)
    return [each.payload for each in found if each.kind in (Kind.ADD, Kind.CHANGE, Kind.MERGE, Kind.SPLIT)]


def area_of(found: Any) -> int:
    height, width = found["size"]
    return rle.area(rle.from_coco(found["counts"], height=height, width=width))


def test_a_box_asks_for_what_is_in_it(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("box-ann")
    page = ann.open()
    places = Places.open(page)
    page.keyboard.press("x")
    with page.expect_response("**/predict") as answered:
        places.drag((40, 30), (200, 150))
    expect(page.locator(".status")).to_contain_text("Enter accepts")
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=1)
    (payload,) = payloads(ann, page)
    assert payload["prompts"] == [{"box": [40.5, 30.5, 200.5, 150.5]}]
    assert answered.value.json()["candidates"][0]["rle"]["counts"] == payload["rle"]["counts"]
    assert mask_HW.any()


def test_a_part_is_chosen_instead_of_the_whole(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = person("part-ann")
    page = ann.open()
    with page.expect_response("**/predict") as answered:
        click(page)
    candidates = answered.value.json()["candidates"]
    areas = [area_of(each["rle"]) for each in candidates]
    part = int(np.argmin(areas))
    page.keyboard.press(str(part + 1))
    expect(page.locator(".choice").nth(part)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=1)
    assert int(mask_HW.sum()) == min(areas) < max(areas)
    (payload,) = payloads(ann, page)
    assert len(payload["prompts"]) == payload["clicks"] == 1

    # With the mouse alone: the picture of the suggestion
    click(page, -150, 60)
    page.locator(".choice").nth(2).click()
    expect(page.locator(".choice").nth(2)).to_have_attribute("aria-pressed", "true")


def test_a_polygon_has_the_pixels_between_its_corners(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("polygon-ann")
    page = ann.open()
    places = Places.open(page)
    page.keyboard.press("p")
    for corner in ((20, 20), (100, 20), (100, 60), (60, 60), (60, 120), (20, 120)):
        places.click(*corner)
    places.click(22, 21)  # near the first corner: closes
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=1)
    expected_HW = rectangle_HW(20, 20, 100, 60) | rectangle_HW(20, 20, 60, 120)
    np.testing.assert_array_equal(mask_HW, expected_HW)


def test_masks_are_merged_and_subtracted_and_taken_apart(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("merge-ann")
    page = ann.open()
    places = Places.open(page)
    one_HW, other_HW = rectangle_HW(20, 20, 80, 80), rectangle_HW(60, 60, 140, 100)
    places.rectangle(20, 20, 80, 80)
    places.rectangle(60, 60, 140, 100)
    far_HW = rectangle_HW(180, 30, 220, 90)
    places.rectangle(180, 30, 220, 90)

    # The first selected loses what the second has
    page.keyboard.press("v")
    places.click(30, 30)
    page.keyboard.down("Control")
    places.click(130, 90)
    page.keyboard.up("Control")
    expect(page.locator(".status")).to_have_text("2 masks selected")
    page.keyboard.press("u")
    masks = stored_masks(ann, page, revision=4)
    np.testing.assert_array_equal(masks[0], one_HW & ~other_HW)
    np.testing.assert_array_equal(masks[1], other_HW)

    # All three become one mask, and that its two parts again
    page.keyboard.down("Control")
    places.click(200, 60)
    page.keyboard.up("Control")
    page.keyboard.press("m")
    expect(page.locator(".masks li")).to_have_count(1)
    (merged_HW,) = stored_masks(ann, page, revision=5)
    np.testing.assert_array_equal(merged_HW, one_HW | other_HW | far_HW)
    page.keyboard.press("d")
    expect(page.locator(".masks li")).to_have_count(2)
    large_HW, small_HW = stored_masks(ann, page, revision=6)
    np.testing.assert_array_equal(large_HW, one_HW | other_HW)
    np.testing.assert_array_equal(small_HW, far_HW)


def test_undo_goes_back_over_several_masks(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("undo-ann")
    page = ann.open()
    places = Places.open(page)
    boxes = [(20, 20, 80, 80), (60, 60, 140, 100), (180, 30, 220, 90)]
    for box in boxes:
        places.rectangle(*box)
    masks_HW = [rectangle_HW(*box) for box in boxes]
    page.keyboard.press("j")
    page.keyboard.press("Delete")
    expect(page.locator(".masks li")).to_have_count(2)
    np.testing.assert_array_equal(stored_masks(ann, page, revision=4), masks_HW[:2])
    page.keyboard.press("Control+z")  # the deletion
    undo(page, 2)
    expect(page.locator(".masks li")).to_have_count(1)
    np.testing.assert_array_equal(stored_masks(ann, page, revision=7), masks_HW[:1])
    redo(page, 2)
    expect(page.locator(".masks li")).to_have_count(3)
    np.testing.assert_array_equal(stored_masks(ann, page, revision=9), masks_HW)


def test_brush_and_eraser_change_exactly_their_pixels_and_holes_are_filled(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("brush-ann")
    page = ann.open()
    places = Places.open(page)
    page.evaluate("localStorage.setItem('gigamask settings', JSON.stringify({ brush: 1, preview: false }))")
    page.reload()
    page.wait_for_selector("canvas.picture")
    places = Places.open(page)
    places.rectangle(50, 40, 110, 100)

    # The eraser, one pixel wide, cuts a hole into the selected mask
    page.keyboard.press("v")
    places.click(60, 50)
    page.keyboard.press("e")
    places.drag((70, 70), (80, 70))
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=2)
    np.testing.assert_array_equal(mask_HW, rectangle_HW(50, 40, 110, 100) & ~rectangle_HW(70, 70, 81, 71))

    # The brush adds a line outside, and the hole is filled in the same draft
    page.keyboard.press("v")
    places.click(60, 50)
    page.keyboard.press("b")
    places.drag((110, 60), (120, 60))
    page.keyboard.press("i")
    page.keyboard.press("Enter")
    (mask_HW,) = stored_masks(ann, page, revision=3)
    np.testing.assert_array_equal(mask_HW, rectangle_HW(50, 40, 110, 100) | rectangle_HW(110, 60, 121, 61))
    assert [payload["strokes"] for payload in payloads(ann, page)] == [1, 1, 2]


def test_prefilled_masks_are_accepted_rejected_and_refined(site: PageSite, person: Make) -> None:
    boxes = [(10, 10, 60, 60), (80, 10, 130, 60), (150, 10, 200, 60), (10, 100, 60, 150)]
    site.open_round("places", prefill=prefilled(*boxes))
    ann = person("prefill-ann")
    page = ann.open()
    places = Places.open(page)
    expect(page.locator(".origin.undecided")).to_have_count(4)
    swatches = page.locator(".swatch").evaluate_all("found => found.map((each) => each.style.background)")
    assert len(set(swatches)) == 4

    # N goes to an undecided one; A and R decide and go on to the next, however fast they are pressed
    page.keyboard.press("n")
    selected = page.locator(".masks li[aria-selected=true]")
    first = selected.get_attribute("data-mask")
    page.keyboard.press("a")
    second = selected.get_attribute("data-mask")
    page.keyboard.press("r")
    third = selected.get_attribute("data-mask")
    assert len({first, second, third}) == 3
    expect(page.locator(".origin.undecided")).to_have_count(2)

    # A click continues the third from its pixels
    column, row = boxes[int(str(third)[-1])][:2]
    with page.expect_request("**/predict") as asked:
        places.click(column + 20, row + 20)
    assert asked.value.post_data_json["mask"]["size"] == [HEIGHT, WIDTH]
    expect(page.locator(".status")).to_contain_text("Enter accepts")
    page.keyboard.press("Enter")
    expect(page.locator(".origin.prefill_edited")).to_have_count(1)
    state = stored(ann, page, revision=3)
    found = {mask.mask: (mask.origin.value, mask.decided) for mask in state.masks}
    assert found[str(first)] == ("prefill_accepted", True)
    assert found[str(third)] == ("prefill_edited", True)
    assert sorted(found.values())[0] == ("prefill_accepted", False)
    assert [mask.mask for mask in state.rejected] == [second]


def test_submitting_asks_about_undecided_masks_by_keyboard_alone(site: PageSite, person: Make) -> None:
    site.open_round("places", prefill=prefilled((10, 10, 60, 60), (80, 10, 130, 60)))
    page = person("undecided-ann").open()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("dialog")).to_contain_text("2 prefilled masks are undecided")

    # Look at them
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".masks li[aria-selected=true] .undecided")).to_have_count(1)
    page.keyboard.press("a")
    expect(page.locator(".origin.undecided")).to_have_count(1)

    # Keep what is left
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Keep it, submit")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#says")).to_contain_text("Submitted with 2 masks.", timeout=30_000)


def test_a_key_leads_to_the_largest_place_without_a_mask(site: PageSite, person: Make) -> None:
    site.open_round("places", prefill=prefilled((0, 0, 150, HEIGHT), (150, 0, WIDTH, 40)))
    ann = person("gap-ann")
    page = ann.open()
    page.keyboard.press("w")
    with page.expect_request("**/predict") as asked:
        page.keyboard.press("f")
    (found,) = asked.value.post_data_json["clicks"]
    assert found["x"] == pytest.approx(203, abs=2)
    assert found["y"] == pytest.approx(116, abs=25)


def test_a_picture_is_skipped_with_a_reason(site: PageSite, person: Make) -> None:
    round_id = site.open_round("places", "desk")
    ann = person("skip-ann")
    page = ann.open()
    task = ann.task_id(page)
    page.keyboard.press("Control+Shift+S")
    page.keyboard.press("Escape")  # changes nothing
    assert ann.task_id(page) == task
    page.keyboard.press("Control+Shift+S")
    page.locator("dialog input").fill("glare over half of it")
    page.keyboard.press("Enter")
    page.locator(f"html[data-task]:not([data-task='{task}'])").wait_for(state="attached")
    deadline = time.monotonic() + 30  # the next picture is there before the server has heard of it
    with site.workspace() as workspace:
        while workspace.submissions.skips(round_id) != {ann.name: 1}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with sqlite3.connect(site.dataset / "workspace.sqlite") as database:
        query = "SELECT reason FROM assignments WHERE task_id = ? AND annotator = ? AND state = 'skipped'"
        assert database.execute(query, (task, ann.name)).fetchall() == [("glare over half of it",)]


def test_a_task_is_done_with_the_keyboard_alone(site: PageSite, person: Make) -> None:
    site.open_round("places", "desk")
    ann = person("keys-ann")
    page = ann.open()
    task = ann.task_id(page)

    # Two clicks with the cursor, a suggestion, acceptance
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    with page.expect_response("**/predict"):
        page.keyboard.press("f")
    expect(page.locator(".choice")).to_have_count(3)
    page.keyboard.press("2")
    page.keyboard.press("Shift+ArrowLeft")
    with page.expect_response("**/predict"):
        page.keyboard.press("g")
    expect(page.locator(".status")).to_contain_text("Enter accepts")
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)
    (payload,) = payloads(ann, page)
    first, second = payload["prompts"]
    assert (first["positive"], second["positive"]) == (True, False)
    assert first["x"] % 1 == first["y"] % 1 == 0.5
    assert (second["y"], second["x"] < first["x"]) == (first["y"], True)

    # Select, delete, undo, then on to the next picture
    page.keyboard.press("j")
    expect(page.locator(".masks li[aria-selected=true]")).to_have_count(1)
    page.keyboard.press("Delete")
    expect(page.locator(".masks li")).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(page.locator(".masks li")).to_have_count(1)
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task]:not([data-task='{task}'])").wait_for(state="attached")
    wait_until_saved(page)
    with site.workspace() as workspace:
        (submission,) = workspace.submissions.read(task_id=task)
    assert submission.masks == 1


@pytest.mark.parametrize("ratio", [1, 2])
def test_clicks_land_on_the_pixel_that_is_seen(site: PageSite, person: Make, ratio: int) -> None:
    site.open_round("places")
    ann = person(f"exact-{ratio}", device_scale_factor=ratio)
    page = ann.open()
    page.keyboard.press("h")  # masks would hide the pixels
    seen: list[tuple[int, int]] = []
    for scale in (1, 8, 32):
        zoom(page, scale)
        for dx, dy in ((0, 0), (53, -41), (-77, 38), (-20, -64)):
            x, y = (int(place) for place in middle(page, dx, dy))
            page.mouse.move(5, 5)
            while (pixel := pixel_under(page, x, y)) is None:
                x, y = x + 1, y + 1  # a line of the grid
                assert x < middle(page, dx + 8)[0]
            seen.append(pixel)
            page.mouse.click(x, y)
            page.keyboard.press("Enter")  # before the answer has come
            expect(page.locator(".masks li")).to_have_count(len(seen), timeout=60_000)
    stored(ann, page, revision=12)
    prompts = [payload["prompts"] for payload in payloads(ann, page)]
    assert [(int(each["x"]), int(each["y"])) for (each,) in prompts] == seen
    assert len(set(seen)) == 12


def zoom(page: Page, scale: int) -> None:
    """Zoom to a number of CSS pixels for each image pixel, at least; the wheel counts in whole steps."""
    ratio = page.evaluate("devicePixelRatio")
    page.mouse.move(*middle(page))
    page.keyboard.press("0")
    page.keyboard.press("9")
    if scale * ratio > 1:
        page.mouse.wheel(0, -ratio * math.ceil(math.log(scale * ratio) / 0.002))  # Chromium divides by the ratio
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
