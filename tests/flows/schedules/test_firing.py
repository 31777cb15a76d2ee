"""Keys of ticks, and that a flow does its work once for each."""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.schedules.firing import fire, tick_key
from storage.workspace.firings import FiringState
from storage.workspace.workspace import Workspace


def at(hour: int, minute: int, day: int = 2, second: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, second, tzinfo=UTC)


@pytest.mark.parametrize(
    ("scheduled", "now", "key"),
    [
        pytest.param(at(2, 0), at(2, 0, second=4), "cron 0 2 * * *:2026-03-02T02:00:00Z", id="on time"),
        pytest.param(
            at(2, 0), at(1, 59, second=58), "cron 0 2 * * *:2026-03-02T02:00:00Z", id="a clock that is behind"
        ),
        pytest.param(at(2, 0), at(23, 0), "cron 0 2 * * *:2026-03-02T02:00:00Z", id="late, and none is newer"),
        pytest.param(at(2, 0), at(9, 0, day=5), "cron 0 2 * * *:2026-03-05T02:00:00Z", id="three ticks late"),
        pytest.param(at(2, 0, day=4), at(9, 0, day=5), "cron 0 2 * * *:2026-03-05T02:00:00Z", id="the pile's next one"),
    ],
)
def test_a_run_is_about_the_newest_tick_that_is_due(scheduled: datetime, now: datetime, key: str) -> None:
    assert tick_key("0 2 * * *", 0, "UTC", scheduled=scheduled, now=now) == key


def test_a_cron_line_is_read_in_its_time_zone() -> None:
    key = tick_key("0 2 * * *", 0, "Europe/Berlin", scheduled=at(1, 0), now=at(1, 0))
    assert key == "cron 0 2 * * *:2026-03-02T01:00:00Z"


def test_ticks_are_found_where_an_event_loop_runs() -> None:
    async def name() -> str:
        return tick_key("0 2 * * *", 0, "UTC", scheduled=at(2, 0), now=at(2, 0))

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: asyncio.run(name())).result() == "cron 0 2 * * *:2026-03-02T02:00:00Z"


def test_ticks_of_an_interval_do_not_depend_on_when_it_was_deployed() -> None:
    keys = {tick_key("", 900, "UTC", scheduled=at(4, minute), now=at(4, 59)) for minute in (15, 17, 30, 44)}
    assert keys == {"every 900 s:2026-03-02T04:45:00Z"}
    assert tick_key("", 900, "UTC", scheduled=at(5, 0), now=at(4, 59)) == "every 900 s:2026-03-02T05:00:00Z"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace.sqlite")


def test_of_runs_that_pile_up_one_does_the_work(workspace: Workspace) -> None:
    done, together = list[int](), threading.Barrier(5)

    def run(number: int) -> None:
        def work() -> Mapping[str, int]:
            done.append(number)
            return {"number": number}

        together.wait()
        outcomes.append(fire(workspace, "verify", "tick", work).outcome)

    outcomes = list[str]()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done", "left", "left", "left", "left"]
    assert workspace.firings.find("verify", "tick").result == {"number": done[0]}
    assert len(done) == 1


def test_work_that_fails_is_recorded_with_its_error_and_raises(workspace: Workspace) -> None:
    def work() -> Mapping[str, int]:
        raise ValueError("2 faults")

    with pytest.raises(ValueError, match="2 faults"):
        fire(workspace, "verify", "tick", work)
    found = workspace.firings.find("verify", "tick")
    assert (found.state, found.result) == (FiringState.FAILED, {"error": "ValueError: 2 faults"})
    left = fire(workspace, "verify", "tick", work)
    assert left.outcome == "left"
    assert "failed at" in left.reason


def test_work_that_is_stopped_is_left_to_the_next_scheduler(workspace: Workspace) -> None:
    def work() -> Mapping[str, int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fire(workspace, "verify", "tick", work)
    assert fire(workspace, "verify", "tick", lambda: {"faults": 0}).outcome == "done"
