"""axe-core finds nothing on any page, dark and light. Needs npm, which fetches axe-core; skips without it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.stages.annotator.web.late_work import paint, tolerant, work_late
from tests.stages.annotator.web.page_site import PageSite, Person, click, keep_undecided, wait_until_saved
from tests.stages.annotator.web.places import prefilled

Make = Callable[..., Person]
NPM = Path(__file__).parent / "npm"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, as package-lock.json pins it."""
    source = NPM / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no npm on this machine (install Node.js): axe-core cannot be fetched")
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=NPM, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot fetch axe-core: {done.stderr.strip()[:300]}")
    return source.read_text()


def findings(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_on_the_task_page(site: PageSite, person: Make, axe: str, theme: str) -> None:
    site.open_round("places", prefill=prefilled((10, 10, 60, 60), (80, 10, 130, 60)))
    ann = person(f"axe-{theme}", color_scheme=theme, reduced_motion="reduce")
    page = ann.open()
    assert findings(page, axe) == []
    page.keyboard.press("j")
    expect(page.locator(".side .actions button").first).to_be_visible()
    assert findings(page, axe) == []
    page.keyboard.press("Escape")
    click(page, 40, 60)
    assert findings(page, axe) == []
    page.keyboard.press("Escape")
    for keys in ("?", "Control+Shift+S"):
        page.keyboard.press(keys)
        page.locator("dialog[open]").wait_for()
        assert findings(page, axe) == []
        page.keyboard.press("Escape")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_on_the_other_pages(site: PageSite, person: Make, axe: str, theme: str) -> None:
    site.open_round("places", prefill=prefilled((10, 10, 60, 60)))
    page = person(f"axe-ann-{theme}", color_scheme=theme).open()
    page.keyboard.press("Control+Enter")
    page.locator("dialog[open]").wait_for()
    assert findings(page, axe) == []
    keep_undecided(page)
    expect(page.locator("#page h1")).to_have_text("Nothing is left to annotate")
    assert findings(page, axe) == []
    lea = person(f"axe-lea-{theme}", "lead", color_scheme=theme, reduced_motion="reduce")
    for name in ("tutorial", "rounds", "lead", "review"):
        page = lea.open(f"/#{name}", wait_for="#page h1")
        assert findings(page, axe) == []
    page.locator(".tabs button").nth(1).click()
    expect(page.locator("figure")).to_have_count(1)
    assert findings(page, axe) == []
    page.get_by_text("Send back").click()
    assert findings(page, axe) == []
    nobody = person(f"axe-nobody-{theme}", color_scheme=theme)
    nobody.context.clear_cookies()
    page = nobody.context.new_page()
    page.goto("/")
    page.wait_for_selector("form")
    assert findings(page, axe) == []


def test_axe_finds_nothing_on_the_merge_view(site: PageSite, person: Make, axe: str) -> None:
    site.open_round("places")
    ann = tolerant(person("axe-late", reduced_motion="reduce"))
    page = ann.open()
    paint(page, -60)
    wait_until_saved(page)
    work_late(site, ann, page, elsewhere=person(ann.name))
    ann.context.set_offline(False)
    page.wait_for_selector(".merge .differences", timeout=30_000)
    late = person("axe-late-lea", "lead").open("/#lead", wait_for=".card")
    late.get_by_text("1 late line …").click()
    late.wait_for_selector(".view figure")
    for theme in ("dark", "light"):
        for each in (page, late):
            each.emulate_media(color_scheme=theme, reduced_motion="reduce")
            assert findings(each, axe) == []
