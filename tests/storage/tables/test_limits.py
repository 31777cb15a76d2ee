"""Queries under limits: what they cost when exceeded, and that nothing of them is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storage.dataset import Dataset
from storage.errors import Corrupt
from storage.tables import limits as limits_module
from storage.tables.limits import MIN_MEMORY_BYTES, LimitExceeded, QueryLimits, default_memory_bytes
from tests.paths import ROOT

GENEROUS = QueryLimits(max_seconds=120, max_memory_bytes=2 << 30)
NARROW = QueryLimits(max_seconds=240, max_memory_bytes=MIN_MEMORY_BYTES)
ENDLESS = (
    "SELECT count(*) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b WHERE a.value * b.value = 3"
)
NARROW_ROWS = MIN_MEMORY_BYTES // 4 // 8
"""Most rows of 8 bytes in an answer under the smallest memory limit: they may fill a quarter of it."""


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    samples.ingest(dataset)
    samples.mask(dataset)
    dataset.fold()
    return dataset


def test_an_answer_under_limits_is_the_same(filled: Dataset) -> None:
    before = filled.snapshot().snapshot_id
    for sql in ("SELECT * FROM masks ORDER BY image_id, mask_id", "SELECT * FROM masks WHERE x0 < 0", "SELECT 1 AS a"):
        assert filled.query(sql, limits=GENEROUS) == filled.query(sql)
        assert filled.query(sql, before, limits=GENEROUS) == filled.query(sql, before)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nothing FROM masks", "No field named nothing.*masks.area_px"),
        ("SELEC 1", "got SELEC"),
        ("/* /* */ SELECT ' */ COPY (SELECT 1) TO 'x.csv' STORED AS CSV -- '", "a dataset is read with SELECT"),
        ("SELECT 1 / 0", "Divide by zero"),
    ],
)
def test_wrong_sql_is_the_same_error_under_limits(
    filled: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as here:
        filled.query(sql)
    with pytest.raises(ValueError, match=message) as there:
        filled.query(sql, limits=GENEROUS)
    assert str(there.value) == str(here.value)
    assert not (tmp_path / "x.csv").exists()


def test_a_store_that_fails_is_its_own_error_under_limits(filled: Dataset) -> None:
    for file in Path(filled.uri).glob("tables/masks/**/*.parquet"):
        file.unlink()
    with pytest.raises(Corrupt, match="gigamask verify"):
        filled.query("SELECT sum(x0) FROM masks", limits=GENEROUS)


def test_a_query_without_end_is_stopped(filled: Dataset) -> None:
    began = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"not done after 2 seconds.*--max-seconds"):
        filled.query(ENDLESS, limits=QueryLimits(max_seconds=2, max_memory_bytes=2 << 30))
    assert time.monotonic() - began < 60  # it would take days


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM generate_series(1, 500000000) GROUP BY value * 7919 % 500000009 ORDER BY n LIMIT 1",
        "SELECT array_length(array_agg(value)) FROM generate_series(1, 500000000)",
        "SELECT length(repeat(concat('a', value), 1000000000)) FROM generate_series(1, 2)",
        f"SELECT value FROM generate_series(1, {NARROW_ROWS + 1_000_000})",
    ],
)
def test_a_query_that_needs_too_much_memory_is_stopped(filled: Dataset, sql: str) -> None:
    with pytest.raises(LimitExceeded, match=r"memory limit of 0.5 GiB.*--max-memory"):
        filled.query(sql, limits=NARROW)


def test_a_statement_that_overflows_the_stack_ends_its_own_process_alone(
    filled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = limits_module._PROGRAM.replace(
        "main()", "import storage.tables.read_only as r; r.MAX_OPERATORS = 10**9; main()"
    )
    monkeypatch.setattr(limits_module, "_PROGRAM", program)
    with pytest.raises(ValueError, match="nested too deeply"):
        filled.query(" UNION ALL ".join(["SELECT 1"] * 50_000), limits=GENEROUS)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_one_that_asked(filled: Dataset, stop: signal.Signals) -> None:
    program = (
        "import sys\nfrom storage.dataset import Dataset\nfrom storage.tables.limits import QueryLimits\n"
        "Dataset.open(sys.argv[1]).query(sys.argv[2], limits=QueryLimits(max_seconds=200))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    asking = subprocess.Popen(
        [sys.executable, "-c", program, filled.uri, ENDLESS], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: bool(children(asking.pid)))
        (child,) = children(asking.pid)
        wait_for(lambda: cpu_ticks(child) > 100)  # the query itself is under way
        asking.send_signal(stop)
        asking.wait(60)
        wait_for(lambda: not is_running(child))
    finally:
        asking.kill()
        asking.wait()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("wrong", [{"max_seconds": 0}, {"max_seconds": float("nan")}, {"max_memory_bytes": 1000}])
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_"):
        QueryLimits(**wrong)


def test_limits_leave_a_quarter_of_the_machine_by_default() -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert MIN_MEMORY_BYTES <= default_memory_bytes() <= max(MIN_MEMORY_BYTES, memory * 3 // 4)
    assert QueryLimits().max_seconds == 600
