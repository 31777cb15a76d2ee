"""What an annotator does all day, in a real browser against a real server."""

from collections.abc import Callable

from playwright.sync_api import expect

from storage.workspace.records import Kind
from tests.stages.annotator.web.page_site import PageSite, Person, click, drag, middle, rows, wait_until_saved

Make = Callable[..., Person]


def test_a_task_goes_from_the_claim_to_the_next_picture(site: PageSite, person: Make) -> None:
    site.open_round("desk", "nuts_0")
    ann = person("claim-ann")
    page = ann.open()
    task = ann.task_id(page)

    # A click gives three suggestions; another one is chosen, and accepted
    click(page)
    expect(page.locator(".choice")).to_have_count(3)
    page.keyboard.press("c")
    expect(page.locator(".choice").nth(1)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)

    # A second mask is refined by a click that takes away, then by hand
    click(page, -150, 60)
    click(page, -120, 90, button="right")
    page.keyboard.press("b")
    drag(page, (-150, 60), (-110, 60))
    page.keyboard.press("e")
    drag(page, (-150, 90), (-130, 90))
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(2)

    # Undo and redo go across masks
    for count in (1, 0):
        page.keyboard.press("Control+z")
        expect(page.locator(".masks li")).to_have_count(count)
    for count in (1, 2):
        page.keyboard.press("Control+Shift+Z")
        expect(page.locator(".masks li")).to_have_count(count)
    wait_until_saved(page)
    state = ann.state(task)
    assert [(mask.clicks, mask.strokes) for mask in state.masks] == [(1, 0), (2, 2)]
    assert (state.revision, state.ignored) == (6, 0)

    # Submitting goes on to the next picture, and the inputs are there to be timed
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task]:not([data-task='{task}'])").wait_for(state="attached")
    wait_until_saved(page)
    with site.workspace() as workspace:
        (submission,) = workspace.submissions.read(task_id=task)
        operations = workspace.operations.read(task, ann.name)
    assert (submission.masks, submission.state) == (2, "submitted")
    inputs = [pair for each in operations if each.kind is Kind.ACTIVITY for pair in each.payload["inputs"]]
    assert {mask.mask for mask in state.masks} <= {mask for _, mask in inputs}


def test_a_draft_is_undone_click_by_click_and_dropped(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = person("draft-ann")
    page = ann.open()
    click(page)
    click(page, 30, 10)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#says")).to_contain_text("not accepted yet")
    page.keyboard.press("Control+z")
    expect(page.locator(".choice")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(page.locator(".choices")).to_be_hidden()
    assert rows(page) == 0
    expect(page.locator("button[data-act=undo]")).to_be_disabled()
    box = middle(page)
    assert box[0] > 0
