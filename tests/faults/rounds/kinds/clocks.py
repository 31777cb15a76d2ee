"""Clocks that jump: the server's by hours, forward and back, between what people do; theirs are hours apart.

The clock of the database is that of its statements: a table of the harness holds by how much it is off.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.compiler import compiles

from storage.errors import NotFound
from storage.workspace.columns import database_now
from storage.workspace.submissions import StaleRevision
from tests.faults.rounds.clients import claim, made
from tests.faults.rounds.databases import Rows
from tests.faults.rounds.kinds.walks import ACTS, PEOPLE, Walk, walks
from tests.faults.rounds.stages import Case, Template

JUMPED = "server's clock jumped"
JUMPS_S = (-5 * 3600, -3600, -660, -1, 601, 660, 3600, 5 * 3600)
"""By how much the server's clock jumps, in seconds; a lease lasts 600."""
NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0 + (SELECT seconds FROM clock_of_tests))",
    "postgresql": "(extract(epoch FROM clock_timestamp())::double precision + (SELECT seconds FROM clock_of_tests))",
}


def clocks(templates: Iterable[Template]) -> list[Case]:
    """Walks through the base world."""
    return walks(JUMPED, take_part, [each for each in templates if each.name == "close"], steady_clock=False)


def take_part(walk: Walk) -> None:
    """People claim, draw, submit and hand back while the clock jumps."""
    set_clocks(walk)
    acts = [claim_one, claim_one, draw, draw, draw, jump, jump, heartbeat, submit, hand_back]
    for _ in range(ACTS):
        walk.dice.choice(acts)(walk)


def set_clocks(walk: Walk) -> None:
    """From now on this process asks the clock of the table; there is more to do, and there are more people."""
    with walk.workspace.database.write() as connection:
        connection.execute(text("CREATE TABLE clock_of_tests (seconds DOUBLE PRECISION NOT NULL)"))
        connection.execute(text("INSERT INTO clock_of_tests VALUES (0)"))
    for name, sql in NOW.items():
        compiles(database_now, name)(lambda element, compiler, sql=sql, **options: sql)
    for name in PEOPLE:
        try:
            walk.workspace.users.get(name)
        except NotFound:
            walk.workspace.users.add(name, "annotator")


def jump(walk: Walk) -> None:
    seconds = walk.dice.choice(JUMPS_S)
    with walk.workspace.database.write() as connection:
        connection.execute(text("UPDATE clock_of_tests SET seconds = seconds + :by"), {"by": seconds})
    walk.faults[f"{JUMPED}{' back' if seconds < 0 else ''}"] += 1


def claim_one(walk: Walk) -> None:
    """A task for somebody. Nobody else's lease may be taken before its end by the server's clock."""
    with Rows(walk.world.place) as rows:
        held = {
            (row["task_id"], row["slot"]): row
            for row in rows.of(
                f"SELECT task_id, slot, token, annotator, expires_at, {clock(walk)} AS now FROM slots "
                "WHERE token IS NOT NULL"
            )
        }
    name = walk.dice.choice(PEOPLE)
    page = claim(walk.workspace, name, walk.promises)
    if page is None:
        return
    page.clock_off_by = timedelta(hours=walk.dice.randint(-9, 9))
    walk.pages.append(page)
    with Rows(walk.world.place) as rows:
        (slot,) = rows.of(f"SELECT task_id, slot FROM slots WHERE token = '{page.token}'")
    before: Any = held.get((slot["task_id"], slot["slot"]))
    if before and before["expires_at"] > before["now"] + 1:
        walk.missed.append(f"{name} was given task {page.task_id}, whose lease lasts {before['expires_at']}")


def clock(walk: Walk) -> str:
    return NOW["postgresql" if "://" in walk.world.place else "sqlite"]


def draw(walk: Walk) -> None:
    """Somebody draws, on a lease that lives or not; what is late becomes a branch."""
    if not walk.pages:
        return
    page = walk.dice.choice(walk.pages)
    current = walk.is_current(page)
    operation = page.make("add", drawing_of(walk))
    result = page.send(walk.workspace, [operation])
    if current and result.branch and page.session not in walk.late:
        walk.false_alarms.append(f"a write in time went to {result.branch}: {result.reason}")
    if not current and not result.branch:
        walk.missed.append("a late write joined the main line")
    if result.branch:
        walk.late.add(page.session)


def drawing_of(walk: Walk) -> dict[str, Any]:
    number = walk.dice.randrange(1000, 9999)
    return made(f"m{number}", number)


def heartbeat(walk: Walk) -> None:
    if walk.pages:
        page = walk.dice.choice(walk.pages)
        walk.expect_refusal(lambda: walk.workspace.leases.heartbeat(page.token), page, "heartbeat")


def hand_back(walk: Walk) -> None:
    if walk.pages:
        page = walk.dice.choice(walk.pages)
        walk.expect_refusal(lambda: walk.workspace.leases.hand_back(page.token), page, "hand-back")


def submit(walk: Walk) -> None:
    """Somebody submits; a page whose work went to a branch is told another revision."""
    if not walk.pages:
        return
    page = walk.dice.choice(walk.pages)
    if page.token in walk.promises.submitted:
        return
    try:
        walk.expect_refusal(lambda: page.submit(walk.workspace), page, "submission")
    except StaleRevision as error:
        page.revision = error.revision
        page.renew()
