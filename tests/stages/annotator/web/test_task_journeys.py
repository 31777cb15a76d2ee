"""What an annotator does all day, in a real browser against a real server."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from stages.rounds.close import close_round
from storage.dataset import Dataset
from storage.workspace.records import Kind
from tests.stages.annotator.web.late_work import paint
from tests.stages.annotator.web.page_site import (
    NEXT_FRAME,
    PageSite,
    Person,
    click,
    drag,
    middle,
    redo,
    rows,
    undo,
    wait_until_saved,
)

Make = Callable[..., Person]
COVERED = """([height, width]) => {
  const canvas = document.querySelector("canvas.picture");
  const { left, top } = canvas.getBoundingClientRect();
  const { a, e, f } = canvas.getContext("2d").getTransform();
  const steps = [...Array(40).keys()].map((each) => (each + 0.5) / 40);
  const [x0, y0] = [left + e, top + f];
  const places = steps.flatMap((across) => steps.map((along) => [x0 + a * width * across, y0 + a * height * along]));
  return places.filter(([x, y]) => document.elementFromPoint(x, y) !== canvas);
}"""
"""Places of the picture, of a fine grid over all of it, that a pointer would not reach."""
DRAWN = "document.querySelector('canvas.picture').toDataURL()"
PARTS = ("canvas.picture", ".toolbar", ".side h2", ".side .look", ".decoding")


def undo_all(page: Page) -> None:
    """Undo opens a mask again, with its prompts, then goes through them, and on to the mask before."""
    masks, open_mask = page.locator(".masks li"), page.get_by_role("group", name="The open mask")
    undo(page, presses=1)
    expect(masks).to_have_count(1)
    expect(open_mask).to_be_visible()
    undo(page, presses=4)
    expect(open_mask).to_be_hidden()
    expect(masks).to_have_count(1)
    undo(page, presses=1)
    expect(masks).to_have_count(0)
    for chosen in (1, 0):
        expect(page.locator(".choice").nth(chosen)).to_have_attribute("aria-pressed", "true")
        undo(page, presses=1)
    expect(page.locator(".choices")).to_be_hidden()
    expect(page.locator("button[data-act=undo]")).to_be_disabled()


def redo_all(page: Page) -> None:
    """Redo goes the same way forward."""
    for presses, count in ((2, 0), (1, 1), (4, 1), (1, 2)):
        redo(page, presses=presses)
        expect(page.locator(".masks li")).to_have_count(count)
        expect(page.get_by_role("group", name="The open mask")).to_be_visible(visible=presses > 1)
    expect(page.locator("button[data-act=redo]")).to_be_disabled()


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

    # Undo and redo go across masks, and through what each was made of
    undo_all(page)
    redo_all(page)
    wait_until_saved(page)
    state = ann.state(task)
    assert [(mask.clicks, mask.strokes) for mask in state.masks] == [(1, 0), (2, 2)]
    assert (state.revision, state.ignored) == (6, 0)

    # Submitting goes on to the next picture, and the inputs are there to be timed
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task]:not([data-task='{task}'])").wait_for(state="attached")
    expect(page.locator(".title")).to_have_text("Journey · 1 of 2 done", timeout=60_000)
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


def test_after_a_reload_undo_opens_an_accepted_mask_with_all_of_its_prompts(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    ann = person("reopened-draft")
    page = ann.open()
    task = ann.task_id(page)
    click(page)
    click(page, 30, 10, button="right")
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)
    page.reload()
    expect(page.locator(".masks li")).to_have_count(1)
    page.keyboard.press("Control+z")
    expect(page.locator(".masks li")).to_have_count(0)
    expect(page.get_by_role("group", name="The open mask")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)
    wait_until_saved(page)
    with site.workspace() as workspace:
        found = [each.payload for each in workspace.operations.read(task, ann.name) if each.kind is Kind.ADD]
    assert found[0] == found[1]
    assert [prompt["positive"] for prompt in found[1]["prompts"]] == [True, False]


def test_a_submitted_picture_is_opened_again_until_it_is_judged(site: PageSite, person: Make) -> None:
    site.open_round("places", "flats")
    ann = person("again-ann")
    page = ann.open()
    first = ann.task_id(page)
    paint(page, -40)
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task]:not([data-task='{first}'])").wait_for(state="attached")
    second = ann.task_id(page)

    # A key leads back, with all masks; the next submission takes the place of the first
    page.keyboard.press("Control+Shift+Enter")
    page.locator(f"html[data-task='{first}']").wait_for(state="attached")
    expect(page.locator(".masks li")).to_have_count(1)
    expect(page.get_by_role("button", name="Leave as submitted")).to_be_visible()
    paint(page, 40)
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task='{second}']").wait_for(state="attached")
    wait_until_saved(page)
    with site.workspace() as workspace:
        found = [(each.masks, each.state) for each in workspace.submissions.read(task_id=first)]
    assert found == [(1, "withdrawn"), (2, "submitted")]

    # At the end both are offered; what is left as submitted stays so
    page.keyboard.press("Control+Enter")
    expect(page.locator("#page h1")).to_have_text("Nothing is left to annotate")
    expect(page.locator(".notice")).to_contain_text("comes into the dataset when the lead closes the round")
    page.get_by_role("link", name=f"Open picture {first} again").press("Enter")
    page.locator(f"html[data-task='{first}']").wait_for(state="attached")
    page.get_by_role("button", name="Leave as submitted").click()
    expect(page.get_by_role("link", name=f"Open picture {second} again")).to_be_visible()

    # A reviewer has judged it: it is offered no more
    with site.workspace() as workspace:
        newest = workspace.submissions.read(task_id=first)[-1]
        workspace.submissions.accept(newest.submission_id, actor="lea")
    page.goto("/#rounds")
    expect(page.get_by_role("link", name=f"Open picture {second} again")).to_be_visible()
    expect(page.get_by_role("link", name=f"Open picture {first} again")).to_have_count(0)


def test_suggestions_cover_no_place_of_the_picture_and_move_nothing(site: PageSite, person: Make) -> None:
    site.open_round("desk")
    page = person("cards-ann").open()
    _, *size = site.images["desk"]
    choices = page.locator(".choice:visible")
    for width, height in ((1280, 720), (1366, 768), (800, 500)):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(NEXT_FRAME)
        before = [page.locator(part).bounding_box() for part in PARTS]
        click(page)
        expect(choices).to_have_count(3)
        assert page.evaluate(COVERED, size) == []
        if width > 900:  # below that the panel lies under the picture, and is scrolled to the suggestions
            assert [page.locator(part).bounding_box() for part in PARTS] == before
        for number in range(3):
            expect(choices.nth(number)).to_be_in_viewport(ratio=0.99)
        page.keyboard.press("Escape")
        expect(choices).to_have_count(0)

    # Where suggestions used to lie, a click is one more prompt
    click(page)
    with page.expect_response("**/predict") as answered:
        page.mouse.click(*middle(page, 0, 80), button="right")
    assert [each["positive"] for each in answered.value.request.post_data_json["clicks"]] == [True, False]


def test_masks_of_the_dataset_are_outlined_on_a_key_and_are_only_looked_at(site: PageSite, person: Make) -> None:
    round_id = site.open_round("desk")
    first = person("committed-ann")
    page = first.open()
    click(page)
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(1)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#says")).to_contain_text("Submitted", timeout=60_000)
    with site.workspace() as workspace:
        close_round(Dataset.open(site.dataset), workspace, round_id)

    # In a later round about the same picture the mask is seen, and is no mask of the task
    site.open_round("desk")
    ann = person("committed-bob")
    page = ann.open()
    page.mouse.move(0, 0)
    page.evaluate(NEXT_FRAME)
    before = page.evaluate(DRAWN)
    page.keyboard.press("t")
    expect(page.locator("#says")).to_contain_text("1 mask of this picture in the dataset")
    expect(page.get_by_label("Dataset")).to_be_checked()
    page.evaluate(NEXT_FRAME)
    assert (seen := page.evaluate(DRAWN)) != before
    assert rows(page) == 0

    # It is shown again after a reload, until the key hides it
    page.reload()
    expect(page.get_by_label("Dataset")).to_be_checked()
    page.evaluate(NEXT_FRAME)
    assert page.evaluate(DRAWN) == seen
    page.keyboard.press("t")
    expect(page.get_by_label("Dataset")).not_to_be_checked()
    page.evaluate(NEXT_FRAME)
    assert page.evaluate(DRAWN) == before
    assert ann.state(ann.task_id(page)).masks == ()
