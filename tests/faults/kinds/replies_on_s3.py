"""On S3: the reply to a put is lost on the way, so that the client sends it again and is told that the name is taken.

The server is real, and so are the clients, boto3's and the Delta library's; a proxy hangs up once the server has done
what it was told, at each put of each job in turn.
"""

import os
import random
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from storage.objects import probing
from tests.faults.checks.files import BucketFiles
from tests.faults.kinds.cases import Case, Template, finish_and_clean
from tests.faults.lost_replies import kind_of_put
from tests.faults.network import LosingNetwork
from tests.faults.processes import Job, Worker
from tests.faults.tally import Tally, done, finished, look

BUCKET = "faults"
REPLY_LOST_ON_S3 = "reply lost on S3"
LOSSES = ("loses a reply", "resets after a reply")


@dataclass(frozen=True, kw_only=True)
class S3Place:
    """A prefix as reached through one address."""

    place: str


def lost_replies_on_s3(network: LosingNetwork, endpoint: str, templates: Iterable[Template]) -> list[Case]:
    """Each put of each job, lost in each way."""
    cases = []
    for template in templates:
        prefix = upload(endpoint, network.address, template)
        network.arm(-1, "")
        done(start(network, prefix, template.job))
        for at, path in enumerate(network.puts()):
            for fault in LOSSES:
                run = partial(one_reply, network, endpoint, template, at, fault, key_of(path))
                cases.append(Case(name=template.name, how=REPLY_LOST_ON_S3, run=run))
    return cases


def upload(endpoint: str, address: str, template: Template) -> str:
    """Copies a dataset into the bucket, where put-if-absent needs no probe; gives its prefix."""
    prefix = uuid.uuid4().hex
    files = BucketFiles(endpoint, BUCKET, prefix)
    for path in template.folder.rglob("*"):
        if path.is_file():
            files.put(path.relative_to(template.folder).as_posix(), path.read_bytes())
    for each in (endpoint, address):
        files.put(probing._note_key(S3Place(place=f"s3://{BUCKET}/{prefix} at {each}")), b"{}")
    return prefix


def one_reply(
    network: LosingNetwork,
    endpoint: str,
    template: Template,
    at: int,
    fault: str,
    key: str,
    root: Path,
    dice: random.Random,
    tally: Tally,
) -> None:
    prefix, kind = upload(endpoint, network.address, template), kind_of_put(key)
    when = f"{template.name} on S3, {fault} to put {at} ({kind})"
    uri, files = f"s3://{BUCKET}/{prefix}", lambda: BucketFiles(endpoint, BUCKET, prefix)
    network.arm(at, fault)
    ended = start(network, prefix, template.job).wait()
    tally.faults[f"{REPLY_LOST_ON_S3}: {kind}"] += len(network.puts()) > at
    finished(ended, tally, when)
    look(uri, files, tally, complete=False, when=when, promised=template.promised)
    finished(Worker(uri, finish_and_clean).wait(), tally, when)
    look(uri, files, tally, complete=True, when=f"{when}, and finished", promised=template.promised)


def start(network: LosingNetwork, prefix: str, job: Job) -> Worker:
    with through(network):
        return Worker(f"s3://{BUCKET}/{prefix}", job)


@contextmanager
def through(network: LosingNetwork) -> Iterator[None]:
    """Processes forked meanwhile reach the server through the network."""
    before = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = network.address
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before


def key_of(path: str) -> str:
    """The key of an object within its dataset, of `/<bucket>/<prefix>/<key>`."""
    return path.split("/", 3)[3]
