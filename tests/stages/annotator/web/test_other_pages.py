"""What reviewers and leads do, and keys that somebody changed, in a real browser against a real server."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.stages.annotator.web.late_work import paint, tolerant, work_late
from tests.stages.annotator.web.page_site import PageSite, Person, click, keep_undecided, wait_until_saved
from tests.stages.annotator.web.places import prefilled, stored

Make = Callable[..., Person]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("page")]


def submit(ann: Person) -> int:
    """Submit the first task as it is, prefilled masks and all, and return its id."""
    page = ann.open()
    task = ann.task_id(page)
    page.keyboard.press("Control+Enter")
    keep_undecided(page)
    page.locator(f"html:not([data-task='{task}'])").wait_for(state="attached")
    expect(page.locator("#says")).to_contain_text("Submitted", timeout=30_000)
    page.close()
    return task


def test_a_reviewer_answers_takes_an_answer_back_and_sends_back(site: PageSite, person: Make) -> None:
    boxes = [(10, 10, 60, 60), (80, 10, 130, 60), (150, 10, 200, 60)]
    round_id = site.open_round("places", prefill=prefilled(*boxes))
    ann = person("reviewed-ann")
    task = submit(ann)
    rev = person("rev", "reviewer")
    page = rev.open("/#review", wait_for=".answers")
    with site.workspace() as workspace:
        (submission,) = workspace.submissions.read(task_id=task)

    # One key each; B asks the last question again, and the newest answer counts
    for key, count in (("y", "1 answered"), ("n", "2 answered"), ("b", "1 answered"), ("u", "2 answered")):
        page.keyboard.press(key)
        expect(page.locator("#page .row .quiet").first).to_have_text(count)
    with site.workspace() as workspace:
        verdicts = workspace.submissions.verdicts(round_id=round_id)
    newest = {verdict.mask: verdict.answer for verdict in verdicts}
    assert sorted(newest.values()) == ["unsure", "yes"]
    assert {verdict.reviewer for verdict in verdicts} == {"rev"}

    # The other question, about the whole picture
    page.locator(".tabs button").nth(1).click()
    expect(page.locator("h1")).to_have_text("Are all objects masked?")
    page.get_by_text("Send back").click()
    page.keyboard.type("two masks are missing")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Nothing is left to review")
    with site.workspace() as workspace:
        assert workspace.submissions.get(submission.submission_id).state == "sent_back"

    # Its annotator gets it again, with the masks
    again = ann.open()
    assert ann.task_id(again) == task
    expect(again.locator(".masks li")).to_have_count(3)


def test_a_reviewer_fixes_a_mask(site: PageSite, person: Make) -> None:
    site.open_round("places", prefill=prefilled((10, 10, 60, 60), (80, 10, 130, 60)))
    task = submit(person("fixed-ann"))
    rev = person("fixer", "reviewer")
    page = rev.open("/#review", wait_for=".answers")
    page.get_by_text("Fix it myself").click()
    page.wait_for_selector("canvas.picture")
    assert rev.task_id(page) == task
    page.keyboard.press("j")
    page.keyboard.press("Delete")
    expect(page.locator(".masks li")).to_have_count(1)
    wait_until_saved(page)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#says")).to_contain_text("Submitted with 1 mask", timeout=30_000)
    with site.workspace() as workspace:
        found = {each.annotator: each for each in workspace.submissions.read(task_id=task)}
    assert found["fixer"].fixes == found["fixed-ann"].submission_id


def test_a_fix_opens_its_picture_before_a_task_that_the_reviewer_held_already(site: PageSite, person: Make) -> None:
    rev = person("fixer-at-work", "reviewer")
    round_id = site.open_round("nuts_0")
    with site.workspace() as workspace:
        (older,) = workspace.leases.claim("fixer-at-work")
    site.open_round("places", prefill=prefilled((10, 10, 60, 60)))
    with site.workspace() as workspace:
        workspace.rounds.reopen(round_id)
    task = submit(person("ann-before"))
    page = rev.open("/#review", wait_for=".answers")
    page.get_by_text("Fix it myself").click()
    page.wait_for_selector("canvas.picture")
    for _ in range(2):
        assert rev.task_id(page) == task
        page.reload()
        page.wait_for_selector("canvas.picture")
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task='{older.task.task_id}']").wait_for(state="attached")
    assert page.url.endswith("#work")


def test_a_lead_pauses_reopens_and_closes_a_round(site: PageSite, person: Make) -> None:
    round_id = site.open_round("places", prefill=prefilled((10, 10, 60, 60)))
    submit(person("closed-ann"))
    lea = person("boss", "lead")
    page = lea.open("/#lead", wait_for=".card")
    expect(page.locator("tbody th")).to_have_text("closed-ann")
    expect(page.locator(".numbers dd").first).to_have_text("1")
    for button, state in (("Pause", "paused"), ("Open again", "open")):
        page.get_by_role("button", name=button).click()
        expect(page.locator(".state")).to_have_text(state)
        with site.workspace() as workspace:
            assert workspace.rounds.get(round_id).state == state
    page.get_by_role("button", name="Close …").click()
    page.locator("dialog").get_by_text("Keep it open").click()
    page.get_by_role("button", name="Close …").click()
    page.locator("dialog .primary").click()
    expect(page.locator("#says")).to_contain_text("1 masks on 1 images", timeout=30_000)
    expect(page.locator(".card")).to_have_count(0)
    with site.workspace() as workspace:
        assert workspace.rounds.get(round_id).state == "closed"


def test_a_lead_closes_a_round_where_nothing_is_left_and_hears_who_is_at_work(site: PageSite, person: Make) -> None:
    round_id = site.open_round("places", "flats")
    ann = person("held-ann")
    page = ann.open()
    task = ann.task_id(page)
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task]:not([data-task='{task}'])").wait_for(state="attached")
    paint(page, 0)
    wait_until_saved(page)

    lea = person("boss-at-the-end", "lead")
    lea.expected = "Failed to load resource: the server responded with a status of 409"
    page = lea.open("/", wait_for=".notice .card")
    page.get_by_role("button", name="Close the round …").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 pictures are not done")
    page.locator("dialog .primary").click()
    expect(page.get_by_role("dialog")).to_contain_text("Masks that were made and not submitted: 1.")
    page.get_by_role("button", name="Close without them").click()
    expect(page.locator("#says")).to_contain_text("0 masks on 1 images", timeout=30_000)
    expect(page.locator(".notice .card")).to_have_count(0)
    with site.workspace() as workspace:
        assert workspace.rounds.get(round_id).state == "closed"


def test_a_lead_opens_a_round_and_adds_images_and_is_told_what_is_wrong(site: PageSite, person: Make) -> None:
    site.open_round("places")
    lea = person("opener", "lead")
    lea.expected = "Failed to load resource: the server responded with a status of 422"
    page = lea.open("/#lead", wait_for=".card")
    page.get_by_role("button", name="Open a round …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("By hand")
    dialog.get_by_label("Number of images").fill("1")
    for wrong, told in (("SELECT nothing", "SQL: "), ("SELECT height FROM images", "expected a column image_id")):
        dialog.get_by_label("SQL query").fill(wrong)
        dialog.get_by_role("button", name="Open it").click()
        expect(dialog.get_by_role("alert")).to_contain_text(told, timeout=30_000)
    wanted = [site.images[name][0] for name in ("flats", "desk")]
    chosen, more = (f"SELECT image_id FROM images WHERE image_id = {image_id}" for image_id in wanted)
    dialog.get_by_label("SQL query").fill(chosen)
    dialog.get_by_label("Guidelines").fill("Mask the flats.")
    dialog.get_by_label("Guidelines").press("Tab")
    dialog.get_by_role("button", name="Open it").press("Enter")
    expect(page.locator("#says")).to_contain_text("By hand has 1 image now.", timeout=30_000)

    card = page.get_by_role("region", name="By hand")
    card.get_by_role("button", name="Add images …").click()
    dialog.get_by_label("SQL query").fill(more)
    dialog.get_by_role("button", name="Add them").click()
    expect(page.locator("#says")).to_contain_text("By hand has 2 images now.", timeout=30_000)
    with site.workspace() as workspace:
        (found,) = [each for each in workspace.rounds.read_all() if each.name == "By hand"]
        images = [task.image_id for task in workspace.rounds.tasks(found.round_id)]
    assert images == wanted
    assert (found.stage, found.guidelines) == ("assisted_manual", "Mask the flats.")


def test_a_lead_looks_at_late_work_and_dismisses_it(site: PageSite, person: Make) -> None:
    round_id = site.open_round("places")
    ann = tolerant(person("late-author"))
    page = ann.open()
    task = ann.task_id(page)
    paint(page, -60)
    wait_until_saved(page)
    work_late(site, ann, page, elsewhere=person(ann.name))
    ann.context.set_offline(False)
    page.wait_for_selector(".merge .differences", timeout=30_000)
    page.close()
    main = ann.state(task)

    lea = person("late-lead", "lead")
    page = lea.open("/#lead", wait_for=".card")
    page.get_by_text("1 late line …").click()
    line = page.locator(".lines button")
    expect(line).to_contain_text(f"late-author · picture {task} ·")
    expect(line).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".view")).to_contain_text("the lease has ended")
    captions = page.locator("figcaption")
    expect(captions.first).to_have_text("On the server: 1 mask, 1 differs")
    expect(captions.last).to_have_text("Late: 2 masks, 2 differ")
    sides = [canvas.screenshot() for canvas in page.locator("canvas.still").all()]
    assert sides[0] != sides[1]

    # Thinking better of it changes nothing; dismissed, the operations stay
    for answer in ("Keep it", "Dismiss"):
        page.get_by_text("Dismiss …").click()
        page.locator("dialog").get_by_role("button", name=answer).click()
    expect(page.locator(".view")).to_have_text("No late work is open in this round.")
    page.get_by_role("link", name="Back").click()
    page.wait_for_selector(".card")
    expect(page.get_by_text("late line …")).to_have_count(0)
    with site.workspace() as workspace:
        (branch,) = workspace.operations.branches(round_id=round_id, state=None)
        drawn = workspace.operations.state(task, ann.name, branch=branch.branch).masks
    assert (branch.state, len(drawn)) == ("dismissed", 2)
    assert ann.state(task) == main


def test_a_key_is_changed_in_the_help_and_shown_everywhere(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("keys-changed")
    page = ann.open()
    page.keyboard.press("?")
    accept = page.get_by_role("button", name="Accept the mask: Enter")
    accept.click()
    page.keyboard.press("b")
    expect(page.locator("dialog .problem")).to_have_text("B is taken: Brush. Change that one first.")
    accept.click()
    page.keyboard.press("7")
    expect(page.get_by_role("button", name="Accept the mask: 7")).to_be_visible()
    page.keyboard.press("Escape")
    click(page)
    expect(page.locator(".status")).to_contain_text("7 accepts")
    page.keyboard.press("7")
    expect(page.locator(".masks li")).to_have_count(1)
    stored(ann, page, revision=1)
    page.reload()
    page.wait_for_selector(".masks li")
    page.keyboard.press("?")
    page.get_by_role("button", name="Original keys").click()
    expect(page.get_by_role("button", name="Accept the mask: Enter")).to_be_visible()

    # A key that was chosen before a later version gave it to something else is still the person's
    page.evaluate("import('/app/settings.js').then((found) => found.saveSettings({ keys: { accept: 'T' } }))")
    page.reload()
    page.wait_for_selector(".masks li")
    click(page, -30, 20)
    page.keyboard.press("t")
    expect(page.locator(".masks li")).to_have_count(2)
