"""A reader that never stops: opens the dataset as a user does and compares what it sees with its fold's records."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage.dataset import Dataset
from storage.tables import fold_log
from storage.tables.fold_log import DoneFold
from storage.tables.query import query
from tests.faults.checks.checker import Checker
from tests.faults.checks.files import Files
from tests.faults.checks.table_rows import TABLES, expected_rows
from tests.faults.processes import end_with_parent

COUNTS = "SELECT " + ", ".join(f"(SELECT count(*) FROM {name}) AS {name}" for name in TABLES)
PAUSE_S = 0.15


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a reader saw: answers, folds among them, and each answer that was torn, in words."""

    reads: int
    folds: int
    torn: list[str]


class Reader:
    """A forked process that reads until it is stopped."""

    def __init__(self, uri: str, files: Callable[[], Files], report: Path) -> None:
        self.report = report
        self.pid = os.fork()
        if not self.pid:
            try:
                end_with_parent()
                _read_on(uri, files(), report)
            finally:
                os._exit(1)

    def stop(self) -> Seen:
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        return Seen(**json.loads(self.report.read_text()))


def torn_read(dataset: Dataset, checker: Checker) -> list[str]:
    """What is wrong in one answer, in words; nothing where it is that of its fold's records."""
    done = fold_log.newest_done(dataset.store)
    return _wrong(dataset, done, _counts(checker, done.number))


def _read_on(uri: str, files: Files, report: Path) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    reads, numbers, torn, expected = 0, [0], [], {}
    dataset, checker = Dataset.open(uri), Checker(files)
    while not stopped or not reads:  # on a busy machine it may be stopped before its first look
        try:
            done = fold_log.newest_done(dataset.store)
            if done.number not in expected:
                expected[done.number] = _counts(checker, done.number)
                torn += [str(finding) for finding in checker.table_findings(done.number)]
            torn += _wrong(dataset, done, expected[done.number])
            if done.number < numbers[-1]:
                torn.append(f"fold {done.number} after fold {numbers[-1]}: the reader went back")
        except Exception as error:
            torn.append(repr(error))
        else:
            numbers.append(done.number)
        reads += 1
        time.sleep(PAUSE_S)
    report.write_text(json.dumps({"reads": reads, "folds": len(set(numbers)), "torn": torn}))
    os._exit(0)


def _wrong(dataset: Dataset, done: DoneFold, expected: dict[str, int]) -> list[str]:
    got = query(dataset.store, done, COUNTS).to_pylist()[0]
    return [] if got == expected else [f"fold {done.number}: {got}, its records say {expected}"]


def _counts(checker: Checker, number: int) -> dict[str, int]:
    rows = expected_rows(checker, checker.state(number))
    return {name: rows[name].total() for name in TABLES}
