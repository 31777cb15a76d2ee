import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.protocol.plans import Plan, PlannedShard, make_plan, put_plan
from tests.image_records import photo_key
from tests.paths import ROOT

HOLD = """
import sys
from storage.dataset import Dataset
dataset = Dataset.open(sys.argv[1])
(plan,) = dataset.plans()
with dataset.turn(plan, on_wait=lambda: print("waits", flush=True)):
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def plan(dataset: Dataset) -> Plan:
    return put_plan(
        dataset.store, make_plan("images", [PlannedShard(name="00000", inputs=(photo_key("photos"),))], {"side": 3})
    )


@pytest.fixture
def holder(dataset: Dataset, plan: Plan) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the turn."""
    with hold(dataset) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        yield process
        process.kill()


def hold(dataset: Dataset) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, dataset.uri]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_second_process_says_that_it_waits_and_goes_on_when_the_first_is_killed(
    dataset: Dataset, plan: Plan, holder: subprocess.Popen[str]
) -> None:
    waits, has_it = threading.Event(), threading.Event()

    def second() -> None:
        with dataset.turn(plan, on_wait=waits.set):
            has_it.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert waits.wait(timeout=300)
    assert not has_it.is_set()
    holder.send_signal(signal.SIGKILL)
    assert has_it.wait(timeout=300)
    thread.join()


def test_another_plan_of_the_same_dataset_waits_for_nobody(dataset: Dataset, holder: subprocess.Popen[str]) -> None:
    shards = [PlannedShard(name="00000", inputs=(photo_key("photos"),))]
    other = put_plan(dataset.store, make_plan("images", shards, {"side": 4}))
    waited: list[str] = []
    with dataset.turn(other, on_wait=lambda: waited.append("waits")):
        pass
    assert waited == []


def test_a_turn_that_ended_is_free(dataset: Dataset, plan: Plan) -> None:
    waited: list[str] = []
    for _ in range(2):
        with dataset.turn(plan, on_wait=lambda: waited.append("waits")):
            pass
    assert waited == []


def test_a_plan_that_may_only_be_read_has_turns_too(dataset: Dataset, plan: Plan) -> None:
    (Path(dataset.uri) / "plans" / f"{plan.plan_id}.json").chmod(0o444)
    test_a_turn_that_ended_is_free(dataset, plan)
