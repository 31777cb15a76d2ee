"""The tutorial in a real browser: every step by what is really done, by pointer and by keyboard alone."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from stages.annotator.tutorial import HEIGHT, TUTORIAL_ID, WIDTH, tutorial
from storage import rle
from tests.stages.annotator.web.page_site import PageSite, Person

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]

Make = Callable[..., Person]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Somebody at the tutorial, who sees the whole picture."""

    page: Page

    def at_step(self, name: str) -> None:
        """Wait until the tutorial is at a step."""
        expect(self.page.locator("html")).to_have_attribute("data-step", name, timeout=30_000)

    def screen(self, column: float, row: float) -> tuple[float, float]:
        """Place of an image pixel on the screen, for the whole picture as `fit` shows it."""
        box, tools, status = (
            self.page.locator(name).bounding_box() for name in ("canvas.picture", ".toolbar", ".status")
        )
        assert box is not None
        assert tools is not None
        assert status is not None
        x0, y0 = tools["x"] + tools["width"] + 12, box["y"] + 12  # beside the tools, above the status line
        width, height = box["x"] + box["width"] - 12 - x0, status["y"] - 12 - y0
        scale = min(width / WIDTH, height / HEIGHT)
        left, top = x0 + (width - WIDTH * scale) / 2, y0 + (height - HEIGHT * scale) / 2
        return left + column * scale, top + row * scale

    def click(self, column: float, row: float, *, button: Literal["left", "right"] = "left", key: str = "") -> None:
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.click(*self.screen(column, row), button=button)
        if key:
            self.page.keyboard.up(key)

    def drag(self, *places: tuple[float, float]) -> None:
        self.page.mouse.move(*self.screen(*places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.screen(*place), steps=6)
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def move_cursor(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Move the keyboard's cursor between two pixels, by single and far steps."""
        for distance, less, more in ((end[0] - start[0], "Left", "Right"), (end[1] - start[1], "Up", "Down")):
            for _ in range(abs(distance)):
                self.press(f"Arrow{more if distance > 0 else less}")


def tables(site: PageSite) -> dict[str, int]:
    """Number of rows of each table that holds work."""
    names = ("tasks", "leases", "operations", "branches", "submissions", "verdicts")
    with closing(sqlite3.connect(site.dataset / "workspace.sqlite")) as database:
        found = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert {"tasks", "operations"} <= found
        return {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names if name in found}


def open_tutorial(person: Make, name: str) -> Learner:
    page = person(name).open("/#tutorial")
    page.evaluate("localStorage.setItem('gigamask settings', JSON.stringify({ brush: 40 }))")
    page.reload()
    page.wait_for_selector("canvas.picture")
    learner = Learner(page=page)
    learner.at_step("click")
    return learner


def make_a_mask(learner: Learner) -> None:
    """Do the steps up to the box by pointer."""
    learner.click(420, 560)  # the table is not the coffee
    expect(learner.page.locator(".status")).to_contain_text("accepts")
    learner.press("Escape")
    learner.at_step("click")
    learner.click(566, 190)
    learner.at_step("part")
    learner.press("2")  # nearly the first suggestion
    expect(learner.page.locator(".choice").nth(1)).to_have_attribute("aria-pressed", "true")
    learner.at_step("part")
    learner.press("3")
    learner.at_step("away")
    learner.click(470, 250, button="right")
    learner.at_step("keep")
    learner.press("Enter")
    learner.at_step("box")
    learner.press("x")
    for end in ("Escape", "Enter"):  # a box that is dropped is no mask
        learner.at_step("box")
        learner.drag((60, 90), (440, 330))
        expect(learner.page.locator(".status")).to_contain_text("accepts")
        learner.press(end)


def mend_and_decide(learner: Learner) -> None:
    """Do the steps about masks that are there, by pointer."""
    learner.at_step("mend")
    learner.click(730, 440, key="Control")
    learner.press("b")
    learner.drag((800, 380), (830, 392), (846, 410), (820, 372), (836, 420), (845, 440), (810, 365))
    learner.press("Enter")
    learner.at_step("decide")
    learner.press("n", "a", "r")
    learner.at_step("merge")
    learner.click(400, 490, key="Control")
    learner.click(520, 460, key="Control")
    learner.press("m")
    learner.at_step("undo")
    learner.press("Control+z")


def test_a_newcomer_is_shown_the_way_to_the_tutorial_once(site: PageSite, person: Make) -> None:
    site.open_round("places", "flats")
    page = person("newcomer", newcomer=True).open()
    hint = page.get_by_role("region", name="New here?")
    expect(hint).to_contain_text("ten moves in two minutes")
    page.reload()
    hint.get_by_role("link", name="Show me").press("Enter")
    Learner(page=page).at_step("click")
    page.goto("/#work")
    page.wait_for_selector("html[data-task]", state="attached")
    expect(hint).to_have_count(0)


def test_the_ten_moves_are_made_by_pointer_and_nothing_is_stored(site: PageSite, person: Make) -> None:
    learner = open_tutorial(person, "learner")
    page = learner.page
    before, posted = tables(site), []
    page.on("request", lambda request: request.method != "GET" and posted.append(request.url.split("/")[-1]))
    make_a_mask(learner)
    mend_and_decide(learner)
    learner.at_step("find")
    learner.press("w", "0")
    learner.click(842, 118)
    expect(page.locator(".choice")).to_have_count(3)
    learner.press("Enter")
    learner.at_step("finished")
    expect(page.locator(".coach")).to_contain_text("10 of 10 done")

    # The server was asked for masks alone, and its database holds what it held before
    assert set(posted) == {"predict"}
    assert tables(site) == before
    page.get_by_role("button", name="Start to annotate").click()
    expect(page.locator("html[data-step]")).to_have_count(0)


def select(page: Page, begin: str) -> None:
    """Go to the next mask whose name begins so, by keyboard."""
    for _ in range(10):
        page.keyboard.press("j")
        name = page.locator(".masks li[aria-selected=true]").get_attribute("data-mask")
        if name is not None and name.startswith(begin):
            return
    raise AssertionError(f"no mask {begin}")


def begin_by_keyboard(learner: Learner) -> None:
    """Do the steps up to mending without a pointer."""
    learner.page.locator("canvas.picture").focus()
    learner.press("ArrowRight")  # the cursor begins in the middle
    learner.move_cursor((WIDTH // 2 + 1, HEIGHT // 2), (566, 190))
    learner.press("f")
    learner.at_step("part")
    learner.press("c", "c")
    learner.at_step("away")
    learner.move_cursor((566, 190), (470, 250))
    learner.press("g")
    learner.at_step("keep")
    learner.press("Enter")
    learner.at_step("box")
    learner.move_cursor((470, 250), (246, 206))
    learner.press("f", "Enter")
    learner.at_step("mend")
    select(learner.page, "orange")
    learner.move_cursor((246, 206), (840, 410))
    learner.press("f")
    expect(learner.page.locator(".status")).to_contain_text("accepts")
    learner.press("Enter")


def test_the_moves_are_made_by_keyboard_alone(person: Make) -> None:
    learner = open_tutorial(person, "keyboard-learner")
    page = learner.page
    begin_by_keyboard(learner)
    learner.at_step("decide")
    for name, key in (("pebble", "a"), ("nothing", "r")):
        select(page, name)
        learner.press(key)
    learner.at_step("merge")
    select(page, "pencil")
    learner.press("Shift+J")
    expect(page.locator(".masks li[aria-selected=true]")).to_have_count(2)
    learner.press("m")
    learner.at_step("undo")
    learner.press("Control+z")
    learner.at_step("find")
    learner.press("w", "f")
    expect(page.locator(".choice")).to_have_count(3)
    learner.press("Enter")
    learner.at_step("finished")
    expect(page.locator(".coach")).to_contain_text("10 of 10 done")

    # Once more, and a step is skipped
    page.get_by_role("button", name="Once more").press("Enter")
    learner.at_step("click")
    page.get_by_role("button", name="Skip step").press("Enter")
    learner.at_step("part")


def test_the_picture_is_in_no_dataset_and_its_things_do_not_overlap(site: PageSite) -> None:
    found = tutorial()
    things = {name: rle.decode(mask) for name, mask in found.things.items()}
    assert set(things) == {"leaf", "cup", "orange", "pebble", "pencil", "coin", "coffee"}
    coffee_HW = things.pop("coffee")
    assert not (coffee_HW & ~things["cup"]).any()
    assert sum(mask_HW.astype(int) for mask_HW in things.values()).max() == 1
    assert TUTORIAL_ID not in [image_id for image_id, _, _ in site.images.values()]
    assert 0 < TUTORIAL_ID < 2**63
