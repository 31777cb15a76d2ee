"""What a run of the harness did and found, and the looks it takes at a dataset, each in a process of its own."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from storage.dataset import Dataset
from storage.verification.faults import Fault
from tests.faults.checks.checker import Checker
from tests.faults.checks.files import Files
from tests.faults.checks.findings import DAMAGED, DOUBLED, FOREIGN, LOST, TORN, UNFINISHED, Finding
from tests.faults.checks.promises import Promises, broken_promises
from tests.faults.processes import STORE_FAILED, Ended, Worker
from tests.faults.reader import torn_read

UNREADABLE = (ValueError, KeyError, OSError, AssertionError, pa.ArrowException)
"""What the checker meets where JSON, a tar or a Parquet file breaks off, or a file is gone that another one names."""
VERIFY_EVERY = 3
"""Of so many looks in the middle of a case, one asks `verify`, which takes half of their time; at its end all do."""
FULL_EVERY = 10
"""Of so many complete looks, one has `verify` read every byte; in the others it compares sizes."""


@dataclass
class Tally:
    """What a whole run did and found."""

    faults: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)
    """Faults that `verify` named where nothing was wrong."""
    missed: list[str] = field(default_factory=list)
    """What the harness destroyed and `verify` did not name."""
    reads: int = 0
    masks: int = 0
    datasets: int = 0
    verified: int = 0
    """Runs of `verify`."""
    first_is_enough: bool = False
    """Whether to stop at the first thing found."""

    @property
    def sums(self) -> dict[str, int]:
        """The six figures that count."""
        of_kind = Counter(finding.kind for finding in self.findings)
        return {
            "faults": self.faults.total(),
            "lost": of_kind[LOST] + of_kind[UNFINISHED],
            "doubled": of_kind[DOUBLED] + of_kind[FOREIGN],
            "torn": of_kind[TORN] + of_kind[DAMAGED] + len(self.torn),
            "false_alarms": len(self.false_alarms),
            "missed": len(self.missed),
        }

    @property
    def in_words(self) -> list[str]:
        """Everything that was found."""
        alarms = [f"false alarm: {each}" for each in self.false_alarms]
        missed = [f"missed: {each}" for each in self.missed]
        return [*map(str, self.findings), *self.torn, *self.failures, *alarms, *missed]

    @property
    def bad(self) -> bool:
        return bool(self.in_words)

    @property
    def over(self) -> bool:
        return self.first_is_enough and self.bad

    def add(self, other: "Tally") -> None:
        for each in fields(self):
            if each.name != "first_is_enough":
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, kw_only=True)
class Destroyed:
    """What the harness has destroyed or planted, so that the dataset is not as it was."""

    originals: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    """By key, the bytes that were there. The checker goes on as if they still were; `verify` must name each key."""
    planted: Collection[str] = ()
    """Keys of a stranger's files that `verify` must name, too."""

    @property
    def named(self) -> set[str]:
        return {*self.originals, *self.planted}

    def accounts_for(self, fault: Fault) -> bool:
        """Whether a fault is that of what was destroyed: it names it, or the shard that it belongs to."""
        text = f"{fault.key} {fault.what}"
        shards = {"/".join(key.split("/")[1:3]) for key in self.originals if key.startswith("data/")}
        return any(each in text for each in self.named | shards)


NOTHING = Destroyed()


def create(uri: str) -> None:
    """A dataset made in a process of its own."""
    answer = in_child(lambda: Dataset.create(uri).uri)
    assert answer == uri


def look(
    uri: str,
    files: Callable[[], Files],
    tally: Tally,
    *,
    complete: bool,
    when: str,
    promised: Promises = MappingProxyType({}),  # type: ignore[assignment]
    destroyed: Destroyed = NOTHING,
) -> None:
    """Checks the bytes, what was promised, and what a reader and `verify` are told, while nobody moves."""
    full = bool(destroyed.originals) or (complete and tally.verified % FULL_EVERY == 0)

    asks_verify = complete or bool(destroyed.named) or tally.reads % VERIFY_EVERY == 0

    def check() -> Tally:
        seen = Tally(reads=1, verified=asks_verify)
        checker = Checker(files(), destroyed.originals)
        try:
            seen.findings += checker.check(complete=complete)
            seen.findings += broken_promises(files(), promised)
        except UNREADABLE as error:
            seen.findings.append(Finding(kind=TORN, thing="object", what=repr(error)))
            return seen
        if not seen.findings:
            dataset = Dataset.open(uri)
            seen.torn += torn_read(dataset, checker)
            if asks_verify:
                compare_with_verify(dataset, seen, destroyed, full=full)
        if complete:
            newest = checker.newest_records(checker.records.values()).values()
            seen.masks = sum(len(list(checker.masks_of(each))) for each in newest if each.fields["kind"] == "masks")
        return seen

    seen = in_child(check)
    seen.findings = [Finding(kind=each.kind, thing=each.thing, what=f"{when}: {each.what}") for each in seen.findings]
    for found in (seen.torn, seen.false_alarms, seen.missed, seen.failures):
        found[:] = [f"{when}: {each}" for each in found]
    tally.add(seen)


def compare_with_verify(dataset: Dataset, seen: Tally, destroyed: Destroyed, *, full: bool) -> None:
    """What `verify` names that is not there, and what it passes over."""
    try:
        faults = dataset.maintenance.verify(fast=not full).faults
    except Exception as error:
        seen.failures.append(f"verify raised {error!r}")
        return
    seen.false_alarms += [f"{fault.key}: {fault.what}" for fault in faults if not destroyed.accounts_for(fault)]
    said = "\n".join(f"{fault.key} {fault.what}" for fault in faults)
    seen.missed += [key for key in sorted(destroyed.named) if key not in said]


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


def finished(ended: Ended, tally: Tally, when: str = "") -> Ended:
    """A worker that had no reason to fail; where it did, that is reported."""
    if ended.code or ended.signal:
        tally.failures.append(f"{when}: signal {ended.signal}, code {ended.code}: {ended.message}")
    return ended
