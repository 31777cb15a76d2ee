"""What a run of the harness did and found, and the looks it takes at a dataset, each in a process of its own."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from storage.dataset import Dataset
from tests.faults.checker import TORN, Checker, Files, Finding
from tests.faults.reader import torn_read
from tests.faults.workers import STORE_FAILED, Ended, Worker


@dataclass
class Tally:
    """What a whole run did and found."""

    faults: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    reads: int = 0
    masks: int = 0
    datasets: int = 0
    first_is_enough: bool = False  # stop at the first thing found

    @property
    def bad(self) -> bool:
        return bool(self.findings or self.torn or self.failures)

    @property
    def over(self) -> bool:
        return self.first_is_enough and self.bad

    def of_kind(self, kind: str, thing: str) -> int:
        return sum(finding.kind == kind and thing in finding.thing for finding in self.findings)


def create(uri: str) -> None:
    """A dataset made in a process of its own."""
    answer = in_child(lambda: Dataset.create(uri).uri)
    assert answer == uri


def look(uri: str, files: Callable[[], Files], tally: Tally, *, complete: bool, when: str) -> None:
    """Checks the bytes, and what a reader is told, while nobody moves."""

    def check() -> tuple[list[Finding], list[str], int]:
        checker = Checker(files())
        try:
            findings = checker.check(complete=complete)
        except (ValueError, KeyError) as error:  # JSON or a tar that breaks off, a file that another one names
            return [Finding(kind=TORN, thing="object", what=repr(error))], [], 0
        newest = checker.newest_records(checker.records.values()).values()
        masks = [mask for each in newest if each.fields["kind"] == "masks" for mask in checker.masks_of(each)]
        return findings, [] if findings else torn_read(Dataset.open(uri), checker), len(masks)

    findings, torn, masks = in_child(check)
    tally.findings += [Finding(kind=each.kind, thing=each.thing, what=f"{when}: {each.what}") for each in findings]
    tally.torn += [f"{when}: {each}" for each in torn]
    tally.reads += 1
    tally.masks += masks if complete else 0


def in_child(call: Callable[[], Any]) -> Any:
    """A call's answer from a forked process: tables are opened there, so that this process may go on forking."""
    return done(Worker("", lambda _: call())).answer


def done(worker: Worker) -> Ended:
    ended = worker.wait()
    assert (ended.code, ended.signal) == (0, 0), ended.message
    return ended


def expect_beaten(ended: Ended, tally: Tally) -> None:
    """Whoever is thawed too late may find its half-written file cleaned away, and say so."""
    if ended.code != STORE_FAILED:
        finished(ended, tally)


def finished(ended: Ended, tally: Tally) -> Ended:
    """A worker that had no reason to fail; where it did, that is reported."""
    if ended.code or ended.signal:
        tally.failures.append(f"signal {ended.signal}, code {ended.code}: {ended.message}")
    return ended
