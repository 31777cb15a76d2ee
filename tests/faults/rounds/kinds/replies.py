"""The annotation server over HTTP: replies that never arrive, and a server that is killed within a request.

A client sends again what was not answered, to the server or to the one that was started in its place. The server is
the real one, with a tiny model; it runs in a process of its own.
"""

import http.client
import json
import os
import random
import select
import signal
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stages.annotator.access import COOKIE, CSRF_HEADER
from stages.annotator.serve import ServeConfig, open_server, serve
from storage.workspace.records import Operation, RoundSpec
from tests.faults import truth
from tests.faults.processes import Worker
from tests.faults.rounds.clients import Page, made
from tests.faults.rounds.stages import Case, Stage, Template
from tests.faults.rounds.steps import count_steps
from tests.faults.rounds.worlds import World, task_of
from tests.faults.tally import Tally, in_child
from tests.tiny_network import save_tiny_model

LOST, KILLED = "reply lost", "server killed within a request"
FAULTS = {LOST: 0.5, KILLED: 0.2}
"""Fractions of the requests, by what happens to them; nothing happens to the others."""
ACTS = 10
"""Tasks of one walk."""
MAX_STEP = 14
"""Last step of a request before which the server may be killed; a request with fewer steps comes through."""
PATIENCE_S = 60.0


@dataclass(kw_only=True)
class Site:
    """A server upon a world, started again whenever it was killed."""

    world: World
    dice: random.Random
    tally: Tally
    tokens: Mapping[str, str]
    """Session token of each account."""
    listening: socket.socket
    csrf: dict[str, str] = field(default_factory=dict)
    server: Worker | None = None

    def start(self) -> None:
        self.server = Worker("", lambda _: run_server(self.world, self.listening), more_steps=None)

    def stop(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
        self.listening.close()

    def post(self, name: str, path: str, **body: Any) -> tuple[int, Any]:
        """Sends a request until it is answered: status and content."""
        kinds = [*FAULTS, ""]
        fault = self.dice.choices(kinds, [*FAULTS.values(), 1 - sum(FAULTS.values())])[0]
        if fault == KILLED:
            strike_file(self.world).write_text(str(self.dice.randint(1, MAX_STEP)))
        answer = self.request("POST", path, name, body, lose_reply=fault == LOST)
        killed = self.revive()
        self.tally.faults[f"{fault}: {path_of(path)}"] += answer is None and (fault == LOST or killed)
        while answer is None:
            answer = self.request("POST", path, name, body)
            self.revive()
        return answer

    def revive(self) -> bool:
        """Starts the server again if it was killed; whether it was."""
        strike_file(self.world).unlink(missing_ok=True)
        assert self.server is not None
        if not self.server.ends_within(0):
            return False
        self.start()
        return True

    def request(
        self, method: str, path: str, name: str, body: Mapping[str, Any] | None = None, *, lose_reply: bool = False
    ) -> tuple[int, Any] | None:
        """Sends a request once; None where no answer came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.listening.getsockname()[1], timeout=PATIENCE_S)
        headers = {"Cookie": f"{COOKIE}={self.tokens[name]}", CSRF_HEADER: self.csrf.get(name, "")}
        headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            if lose_reply:
                select.select([connection.sock], [], [], PATIENCE_S)  # the server has done what it was asked for
                return None
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (ConnectionError, http.client.HTTPException):
            if self.server is not None:
                self.server.ends_within(1)
            return None
        finally:
            connection.close()


def run_server(world: World, listening: socket.socket) -> None:
    """The server's whole life. It kills itself at the step that the strike file says, counted from then on."""
    path, left = strike_file(world), [-1]

    def step() -> None:
        if left[0] < 0 and path.exists():
            left[0] = int(path.read_text() or "1")
        if left[0] >= 0 and path.exists():
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            left[0] = -1

    count_steps(step)
    opened = world.open()
    config = ServeConfig(mode="team")
    model = str(world.facts["model"])
    with open_server(opened.dataset, opened.workspace, [model], world.root / "cache", config) as server:
        serve(server, config, listening)


def strike_file(world: World) -> Path:
    return world.root / "strike"


def path_of(path: str) -> str:
    """A path without its ids."""
    return "/".join("*" if any(each.isdigit() for each in part) else part for part in path.split("/"))


def replies(templates: Iterable[Template]) -> list[Case]:
    """Walks through the base world."""
    return [
        Case(name=template.name, how=LOST, run=partial(one_walk, template))
        for template in templates
        if template.name == "close"
    ]


def one_walk(template: Template, root: Path, dice: random.Random, tally: Tally) -> None:
    seed = dice.random()
    stage = Stage.copy(template, root, f"replies lost, seed {seed}", tally)
    stage.world.facts["tokens"] = in_child(lambda: prepare(stage.world))
    stage.world.facts["model"] = root / "tiny.safetensors"
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    site = Site(
        world=stage.world,
        dice=random.Random(seed),
        tally=tally,
        tokens=stage.world.facts["tokens"],
        listening=listening,
    )
    site.start()
    try:
        for name in site.tokens:
            status, me = site.request("GET", "/api/me", name) or (0, {})
            assert status == 200, me
            site.csrf[name] = me["csrf_token"]
        for _ in range(ACTS):
            work_on_a_task(site, stage)
        close_over_http(site, stage)
    finally:
        site.stop()
    stage.look()
    stage.finish()
    stage.remove()


def prepare(world: World) -> dict[str, str]:
    """A further round, a model, and a login of each account."""
    save_tiny_model(world.root)
    opened = world.open()
    images = [truth.image_id(number) for number in (0, 1, 3, 4, 6, 7, 9, 10)]
    tasks = tuple(task_of(each, overlap=2) for each in images)
    opened.workspace.rounds.open(RoundSpec(stage="assisted_manual", name="over HTTP", tasks=tasks))
    opened.workspace.users.add("boss", "lead", password="a password of tests")
    return {name: opened.workspace.users.log_in(name, seconds=3600) for name in ("ann", "bob", "rita", "lea")}


def work_on_a_task(site: Site, stage: Stage) -> None:
    """Somebody claims a task, works on it, and finishes it in one way or another; a reviewer looks at it."""
    name = site.dice.choice(("ann", "bob"))
    page = claim(site, stage, name)
    if page is None:
        return
    for _ in range(site.dice.randint(1, 2)):
        number = site.dice.randrange(1000, 9999)
        send(site, stage, page, [page.make("add", made(f"m{number}", number)), page.make("note", {"text": "seen"})])
    ending = site.dice.choice(("submit", "submit", "submit", "skip", "hand-back", "release"))
    if ending == "submit":
        submission = submit(site, stage, page)
        if submission is not None:
            review(site, stage, submission)
    elif ending == "release":
        expect(stage, site.post("lea", "/api/tasks/release", token=page.token), "lease_ended")
        send(site, stage, page, [page.make("add", made("late", site.dice.randrange(1000, 9999)))], late=True)
    else:
        more = {"reason": "too dark"} if ending == "skip" else {}
        expect(stage, site.post(name, f"/api/tasks/{ending}", token=page.token, **more), "lease_ended")


def claim(site: Site, stage: Stage, name: str) -> Page | None:
    """A page on a task: claimed, or held since a claim that was not answered."""
    expect(stage, site.post(name, "/api/tasks/claim", count=1))
    status, held = site.request("GET", "/api/tasks/held", name) or (0, [])
    if status != 200:
        stage.tally.false_alarms.append(f"{stage.when}: held tasks: {status} {held}")
    stage.world.promises.claimed.update(each["token"] for each in held)
    if not held:
        return None
    lease = held[0]
    return Page(name, int(lease["task_id"]), lease["token"], int(lease["revision"]), stage.world.promises)


def send(site: Site, stage: Stage, page: Page, batch: list[Operation], *, late: bool = False) -> None:
    """Sends operations; late ones must be answered as stored on a branch."""
    body = [{**vars(each), "client_time": each.client_time.isoformat()} for each in batch]
    status, answer = site.post(page.annotator, "/api/operations", token=page.token, operations=body)
    if (status, answer.get("error")) != ((409, "stored_on_branch") if late else (200, None)):
        stage.tally.false_alarms.append(f"{stage.when}: operations: {status} {answer}")
        return
    result = answer["details"] if late else answer
    stage.world.promises.stored.update({*result["stored"], *result["known"]})


def submit(site: Site, stage: Stage, page: Page) -> int | None:
    """Submits a task; the id of the submission."""
    answer = site.post(page.annotator, "/api/tasks/submit", token=page.token, revision=page.revision)
    if not expect(stage, answer):
        return None
    stage.world.promises.submitted[page.token] = page.revision
    return int(answer[1]["submission_id"])


def review(site: Site, stage: Stage, submission_id: int) -> None:
    """A reviewer accepts a submission, or sends it back, or does not look at it."""
    act = site.dice.choice(("accept", "send-back", ""))
    if act:
        more = {"reason": "leaks"} if act == "send-back" else {}
        answer = site.post("rita", f"/api/submissions/{submission_id}/{act}", **more)
        expect(stage, answer, "invalid")  # sent back already, by the request whose reply was lost


def close_over_http(site: Site, stage: Stage) -> None:
    """A lead closes the base round, again and again until that is answered."""
    expect(stage, site.post("lea", f"/api/rounds/{stage.world.round_id}/close", discard_unfinished=True))


def expect(stage: Stage, answer: tuple[int, Any], *codes: str) -> bool:
    """Whether a request was done; it may also be refused with these codes, where it was done before."""
    status, content = answer
    if status != 200 and content.get("error") not in codes:
        stage.tally.false_alarms.append(f"{stage.when}: {status} {content}")
    return status == 200
