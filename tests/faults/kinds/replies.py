"""The reply to a put is lost, for each put of each job: commit records, plans, folds, done folds, snapshots, models.

The put is done, and its caller is told that it failed (lost_replies.py). Where the name is said to be taken already,
the code itself must find out that the object is its own, and go on; where it is told nothing but that the put failed,
it may also say so, and the same command must then come to its end.
"""

import random
import shutil
import uuid
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from storage.dataset import Dataset
from tests.faults.kinds.cases import Case, Stage, Template
from tests.faults.lost_replies import NONE_LOST, SENT_AGAIN, WORDS, LostReply, kind_of_put
from tests.faults.processes import STORE_FAILED, Strike, Worker
from tests.faults.tally import Tally, done, finished

REPLY_LOST = "reply lost"
KNOWN = ("plan", "commit record", "fold", "done fold", "snapshot", "version", "probe", "dataset.json")
"""Puts under a name that only one may take, or with a number in it, so that the code can see whose is there."""


def lost_replies(folder: Path, templates: Iterable[Template]) -> list[Case]:
    """The reply to each put of each job, and of the creation of a dataset, in each way to lose it."""
    cases = []
    for template in templates:
        for at, name in enumerate(template.puts):
            for said in WORDS:
                run = partial(one_reply, template, LostReply(at=at, said=said), name)
                cases.append(Case(name=f"{template.name}: {kind_of_put(name)}", how=REPLY_LOST, run=run))
    for at, name in enumerate(puts_of_creation(folder)):
        for said in WORDS:
            run = partial(one_creation, LostReply(at=at, said=said), name)
            cases.append(Case(name="create", how=REPLY_LOST, run=run))
    return cases


def puts_of_creation(folder: Path) -> list[str]:
    root = folder / f"created-{uuid.uuid4().hex}"
    puts = done(Worker("", lambda _: Dataset.create(root).uri, Strike(lost_reply=NONE_LOST), root=root)).puts
    shutil.rmtree(root)
    return puts


def one_reply(template: Template, lost: LostReply, name: str, root: Path, dice: random.Random, tally: Tally) -> None:
    kind = kind_of_put(name)
    stage = Stage.copy(template, root, f"{template.name}, reply {lost.at} ({kind}, {lost.said}) lost", tally)
    ended = stage.start(template.job, Strike(lost_reply=lost)).wait()
    tally.faults[f"{REPLY_LOST}: {kind}"] += len(ended.puts) > lost.at
    if ended.code == STORE_FAILED and not must_know(kind, lost):
        stage.look()
        ended = stage.start(template.job).wait()
    finished(ended, tally, stage.when)
    stage.promise()
    stage.look()
    stage.finish()


def must_know(kind: str, lost: LostReply) -> bool:
    """Whether the code is told enough to find that its put is done."""
    return lost.said == SENT_AGAIN and kind in KNOWN


def one_creation(lost: LostReply, name: str, root: Path, dice: random.Random, tally: Tally) -> None:
    kind = kind_of_put(name)
    when = f"create, reply {lost.at} ({kind}, {lost.said}) lost"
    ended = Worker("", lambda _: Dataset.create(root).uri, Strike(lost_reply=lost), root=root).wait()
    tally.faults[f"{REPLY_LOST}: {kind} of a new dataset"] += len(ended.puts) > lost.at
    if ended.code == STORE_FAILED and not must_know(kind, lost):
        ended = Worker("", lambda _: Dataset.open_or_create(root).uri).wait()
    finished(ended, tally, when)
    if root.exists():
        stage = Stage(root=root, promised={}, when=when, tally=tally)
        stage.look(complete=True)
