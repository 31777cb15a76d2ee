"""Work in a browser without a network, and work that comes after the lease of its task has ended."""

from playwright.sync_api import Page, expect

from tests.stages.annotator.web.page_site import PageSite, Person, drag, wait_until_saved

UNANSWERED = "Failed to load resource"
"""Beginning of what Chromium's console says of a request that failed: expected in these journeys."""


def tolerant(someone: Person) -> Person:
    """Somebody whose browser may report requests without an answer."""
    someone.expected = UNANSWERED
    return someone


def paint(page: Page, dx: float, *, height: float = 20) -> None:
    """Draw a mask by hand, or on the selected one, and accept it; needs no server."""
    page.keyboard.press("b")
    drag(page, (dx, -height), (dx, height))
    page.keyboard.press("Enter")


def work_late(site: PageSite, ann: Person, page: Page, *, elsewhere: Person) -> None:
    """Offline, change the only mask and draw one more; the lease ends, and another browser changes the same mask."""
    task = ann.task_id(page)
    ann.context.set_offline(True)
    page.locator(".masks li").first.click()
    paint(page, -30)
    paint(page, 60)
    expect(page.locator(".saved")).to_have_attribute("data-unsent", "2")
    with site.workspace() as workspace:
        (lease,) = workspace.leases.held(ann.name)
        workspace.leases.release(lease.token, actor="lea")
    change_first_mask(elsewhere, task)


def change_first_mask(someone: Person, task: int) -> None:
    """Draw on the first mask of a task in a browser of its own."""
    page = someone.open()
    assert someone.task_id(page) == task
    page.locator(".masks li").first.click()
    paint(page, -80, height=40)
    wait_until_saved(page)
    page.close()
