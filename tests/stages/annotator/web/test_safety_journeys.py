"""Nothing that an annotator did is lost: offline, under a killed server, in two tabs, after a lease or login ended."""

import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import Route, expect
from sqlalchemy import delete, update

from storage.workspace.records import Branch
from storage.workspace.schema import ASSIGNMENTS, OPERATIONS
from tests.stages.annotator.web.late_work import paint, tolerant, work_late
from tests.stages.annotator.web.page_site import (
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


def test_work_goes_on_offline_and_arrives_when_the_network_is_back(site: PageSite, person: Make) -> None:
    site.open_round("places", "nuts_0")
    ann = tolerant(person("offline-ann"))
    page = ann.open()
    first = ann.task_id(page)

    # Two masks, one undone; the picture is submitted, and the next one is there
    ann.context.set_offline(True)
    paint(page, -60)
    paint(page, 60)
    undo(page)
    expect(page.locator(".masks li")).to_have_count(1)
    expect(page.locator(".saved")).to_have_attribute("data-state", "offline")
    expect(page.locator(".saved")).to_contain_text("3 kept here")
    page.keyboard.press("Control+Enter")
    page.locator(f"html[data-task]:not([data-task='{first}'])").wait_for(state="attached")
    second = ann.task_id(page)
    paint(page, 0)
    assert ann.state(first).revision == ann.state(second).revision == 0

    ann.context.set_offline(False)
    wait_until_saved(page)
    with site.workspace() as workspace:
        (submission,) = workspace.submissions.read(task_id=first)
    assert (submission.masks, submission.state) == (1, "submitted")
    assert (ann.state(first).revision, len(ann.state(second).masks)) == (3, 1)
    assert branches(site, first, second) == []


def test_a_page_opens_by_itself_once_the_server_answers(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = tolerant(person("early-ann"))
    answers = {"/api/me": False, "/api/tasks/claim": False}

    def refuse_at_first(route: Route) -> None:
        """No answer to who is logged in until the test says so, and a busy server at the first claim."""
        path = urlsplit(route.request.url).path
        if answers[path]:
            return route.fallback()
        if path == "/api/me":
            return route.abort()
        answers[path] = True
        return route.fulfill(
            status=503, json={"error": "workspace_unavailable", "message": "the database is locked", "details": {}}
        )

    for path in answers:
        ann.context.route(f"**{path}", refuse_at_first)
    page = ann.open(wait_for=".notice h1")
    expect(page.locator("h1")).to_have_text("The server does not answer")
    answers["/api/me"] = True
    page.wait_for_selector("canvas.picture")
    assert answers["/api/tasks/claim"], "the claim was refused once"


def test_a_server_killed_mid_image_and_started_again_has_everything(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = tolerant(person("killed-ann"))
    page = ann.open()
    task = ann.task_id(page)
    paint(page, -60)
    wait_until_saved(page)
    page.wait_for_function("async () => navigator.serviceWorker.controller && (await caches.match('/'))")
    site.kill()
    try:
        paint(page, 60)
        undo(page)
        redo(page)
        expect(page.locator(".saved")).to_have_attribute("data-unsent", "3")
        expect(page.locator(".masks li")).to_have_count(2)
        page.reload()  # the browser has the page itself as well
        expect(page.locator(".masks li")).to_have_count(2)
        expect(page.locator(".saved")).to_have_attribute("data-unsent", "3")
        undo(page)
        redo(page)
    finally:
        site.start()
    wait_until_saved(page)
    state = ann.state(task)
    assert (len(state.masks), state.revision, state.ignored) == (2, 6, 0)
    assert branches(site, task) == []


def test_a_click_that_nobody_can_answer_is_not_taken_and_the_page_says_so(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = tolerant(person("unanswered-ann"))
    page = ann.open()
    ann.context.set_offline(True)
    page.mouse.click(*middle(page, 30, 30))
    expect(page.locator("#says")).to_contain_text("your click was not taken. Click again")
    expect(page.locator(".status")).to_have_text("Click an object")
    paint(page, -60)
    expect(page.locator(".masks li")).to_have_count(1)

    # A click on a mask in the making leaves it as it was
    page.keyboard.press("b")
    drag(page, (60, -20), (60, 20))
    page.keyboard.press("q")
    page.mouse.click(*middle(page, 60, 0))
    expect(page.locator("#says")).to_contain_text("your click was not taken")
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(2)

    ann.context.set_offline(False)
    click(page, 30, 30)
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(3)
    wait_until_saved(page)
    state = ann.state(ann.task_id(page))
    assert [(mask.clicks, mask.strokes) for mask in state.masks] == [(0, 1), (0, 1), (1, 0)]


def test_a_reload_brings_back_masks_draft_and_undo(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = tolerant(person("reload-ann"))
    page = ann.open()
    task = ann.task_id(page)
    paint(page, -60)
    wait_until_saved(page)
    ann.context.set_offline(True)
    paint(page, 60)
    expect(page.locator(".saved")).to_have_attribute("data-unsent", "1")
    ann.context.set_offline(False)
    page.keyboard.press("q")
    click(page)
    page.keyboard.press("c")
    expect(page.locator(".choice").nth(1)).to_have_attribute("aria-pressed", "true")

    page.reload()
    expect(page.locator(".choice").nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".masks li")).to_have_count(2)
    page.keyboard.press("Enter")
    expect(page.locator(".masks li")).to_have_count(3)
    page.keyboard.press("Control+z")  # the chosen suggestion
    for count in (2, 1, 0):
        undo(page)
        expect(page.locator(".masks li")).to_have_count(count)
    redo(page)
    wait_until_saved(page)
    state = ann.state(task)
    assert (len(state.masks), state.revision, state.ignored) == (1, 7, 0)
    assert branches(site, task) == []


def test_of_two_tabs_one_has_the_task_and_the_other_can_take_it_over(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = person("tabs-ann")
    one = ann.open()
    task = ann.task_id(one)
    paint(one, -60)
    one.keyboard.press("q")
    click(one)

    # The second tab says so, and takes over masks and draft; the first one says so
    two = ann.open(wait_for=".notice button")
    expect(two.locator(".notice")).to_contain_text("open in another tab")
    two.locator(".notice button").click()
    expect(two.locator(".choice")).to_have_count(3)
    expect(one.locator(".notice")).to_contain_text("in another tab")
    two.keyboard.press("Enter")
    expect(two.locator(".masks li")).to_have_count(2)
    wait_until_saved(two)
    expect(one.locator(".saved")).to_have_attribute("data-unsent", "0")

    # And back
    one.locator(".notice button").click()
    expect(one.locator(".masks li")).to_have_count(2)
    paint(one, 60)
    wait_until_saved(one)
    assert (len(ann.state(task).masks), ann.state(task).revision) == (3, 3)
    assert branches(site, task) == []


def test_late_work_after_the_lease_ended_is_merged_by_its_author(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = tolerant(person("late-ann"))
    page = ann.open()
    task = ann.task_id(page)
    paint(page, -60)
    wait_until_saved(page)
    (common,) = ann.state(task).masks

    # Offline the mask is changed and one is drawn, the lease ends, and elsewhere the same mask is changed as well
    work_late(site, ann, page, elsewhere=person(ann.name))
    elsewhere = ann.state(task)

    # Back online the work is on a branch, and the page shows both lines
    ann.context.set_offline(False)
    page.wait_for_selector(".merge .differences", timeout=30_000)
    (branch,) = branches(site, task)
    assert (branch.reason, branch.state) == ("the lease has ended", "open")
    expect(page.locator(".merge canvas")).to_have_count(2)
    expect(page.locator(".differences fieldset")).to_have_count(2)
    expect(page.locator("input[value=both]")).to_be_checked()
    assert ann.state(task) == elsewhere
    page.locator(".merge button.primary").click()
    expect(page.locator(".masks li")).to_have_count(3)
    wait_until_saved(page)

    # The main line has the mask of the server, the one that was drawn over it, and the new one
    state = ann.state(task)
    assert (len(state.masks), state.revision, state.ignored) == (3, 4, 0)
    assert state.masks[0] == elsewhere.masks[0] != common
    with site.workspace() as workspace:
        drawn = workspace.operations.state(task, ann.name, branch=branch.branch).masks
    assert [mask.rle for mask in state.masks[1:]] == [mask.rle for mask in drawn]
    assert [each.state for each in branches(site, task)] == ["merged"]


def test_leases_of_pictures_fetched_ahead_are_kept_and_let_go_when_they_end(site: PageSite, person: Make) -> None:
    site.open_round("places", "nuts_0", "desk")
    ann = tolerant(person("heart-ann"))
    page = ann.open()
    with site.workspace() as workspace:
        before = {each.task.task_id: each.expires_at for each in workspace.leases.held(ann.name)}
    assert len(before) == 3

    # The page beats once a minute, and whenever it is looked at again
    with page.expect_response("**/heartbeat"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    deadline = time.monotonic() + 20
    with site.workspace() as workspace:
        while not all(each.expires_at > before[each.task.task_id] for each in workspace.leases.held(ann.name)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        last = next(each for each in workspace.leases.held(ann.name) if each.task.task_id != ann.task_id(page))
        workspace.leases.release(last.token, actor="lea")
    with page.expect_response(lambda answer: "/heartbeat" in answer.url and answer.status == 409):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    # The picture whose lease has ended is claimed again before it is worked on
    for _ in range(2):
        task = ann.task_id(page)
        paint(page, 0)
        wait_until_saved(page)
        page.keyboard.press("Control+Enter")
        page.locator(f"html:not([data-task='{task}'])").wait_for(state="attached")
    page.wait_for_selector("html[data-task]", state="attached")
    paint(page, 0)
    wait_until_saved(page)
    assert branches(site, *before) == []


def test_an_ended_login_is_renewed_in_place(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = tolerant(person("login-ann"))
    page = ann.open()
    task = ann.task_id(page)
    with site.workspace() as workspace:
        workspace.users.set_password(ann.name, "correct horse battery")  # ends all logins
    paint(page, -60)
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("Nothing is lost")
    expect(dialog.locator("input[name=name]")).to_have_value(ann.name)
    assert ann.state(task).revision == 0
    dialog.locator("input[type=password]").fill("correct horse battery")
    page.keyboard.press("Enter")
    wait_until_saved(page)
    expect(dialog).to_have_count(0)
    page.keyboard.press("q")
    click(page, 60)
    page.keyboard.press("Enter")
    wait_until_saved(page)
    assert len(ann.state(task).masks) == rows(page) == 2


def test_one_refused_operation_leaves_the_others_alone(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = tolerant(person("refused-ann"))
    page = ann.open()
    task = ann.task_id(page)
    broken: set[str] = set()

    def break_the_second(route: Route) -> None:
        """Give the second mask a size that the server has to refuse."""
        body = json.loads(route.request.post_data or "")
        added = [each for each in body["operations"] if each["kind"] == "add"]
        broken.update(each["op_id"] for each in added[1:2] if not broken)
        for each in added:
            if each["op_id"] in broken:
                each["payload"]["rle"]["size"] = [1, 1]
        route.continue_(post_data=json.dumps(body))

    ann.context.set_offline(True)
    for dx in (-90, 0, 90):
        paint(page, dx)
    undo(page)
    redo(page)
    page.route("**/api/operations", break_the_second)
    ann.context.set_offline(False)
    expect(page.locator("button.refused")).to_have_text("1 refused", timeout=30_000)
    wait_until_saved(page)
    expect(page.locator(".masks li")).to_have_count(2)
    state = ann.state(task)
    assert (len(state.masks), state.revision, state.ignored) == (2, 4, 0)

    # The refused mask is kept, and can be saved as a file
    page.locator("button.refused").click()
    with page.expect_download() as download:
        page.get_by_text("Save as a file").click()
    (kept,) = json.loads(download.value.path().read_text())
    assert kept["operation"]["op_id"] in broken
    assert kept["operation"]["payload"]["rle"]["size"] != [1, 1]


def test_what_a_restored_server_has_lost_is_sent_again(site: PageSite, person: Make) -> None:
    site.open_round("places")
    ann = tolerant(person("restored-ann"))
    page = ann.open()
    task = ann.task_id(page)
    for dx in (-90, -30, 30):
        paint(page, dx)
    wait_until_saved(page)
    before = ann.state(task)
    with site.workspace() as workspace, workspace.database.write() as connection:
        connection.execute(delete(OPERATIONS).where(OPERATIONS.c.task_id == task, OPERATIONS.c.revision > 1))
        connection.execute(update(ASSIGNMENTS).where(ASSIGNMENTS.c.task_id == task).values(revision=1))
    assert len(ann.state(task).masks) == 1
    paint(page, 90)
    expect(page.locator(".masks li")).to_have_count(4)
    wait_until_saved(page)
    state = ann.state(task)
    assert (len(state.masks), state.revision, state.ignored) == (4, 4, 0)
    assert state.masks[:3] == before.masks
    assert branches(site, task) == []


def branches(site: PageSite, *task_ids: int) -> list[Branch]:
    """All branches of some tasks, whatever became of them."""
    with site.workspace() as workspace:
        return [each for task in task_ids for each in workspace.operations.branches(task, state=None)]
