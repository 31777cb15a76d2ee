"""The chain of promoted models: one winner, refusals on record, the way back, and writers that die or lose replies."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.errors import Conflict, Corrupt, NotFound, StoreError
from storage.protocol.promotions import Decided, Decision, Generation, find_rollback

WRITER = """
import os, signal, sys
from storage.dataset import Dataset
from storage.protocol.promotions import Decided, Decision

dataset = Dataset.open(sys.argv[1])
put, moment = dataset.store.put_if_absent, sys.argv[2]

def put_and_die(key, data):
    if moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    put(key, data)
    if moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)

dataset.store.put_if_absent = put_and_die
print(dataset.promotions.add(Decided(
    decision=Decision.PROMOTION, model_id="b-2", over="a-1", key="k", made_by="ann", reason="better"
)).number)
"""


def decided(decision: str, model_id: str, over: str, **more: str) -> Decided:
    key = more.get("key", f"{decision}:{model_id}:{over}")
    return Decided(decision=Decision(decision), model_id=model_id, over=over, key=key, made_by="ann", reason="said so")


@pytest.fixture
def started(dataset: Dataset) -> Dataset:
    dataset.promotions.add(decided("start", "a-1", ""))
    return dataset


def promoted(dataset: Dataset) -> list[tuple[str, str]]:
    return [(each.decision.value, each.promoted) for each in dataset.promotions.history()]


def test_each_generation_says_who_decided_what_when_why_and_over_what(started: Dataset) -> None:
    evidence = {"gain": 0.25, "checks": [{"name": "gain at 1 click", "passed": True}]}
    made = started.promotions.add(
        Decided(
            decision=Decision.PROMOTION,
            model_id="b-2",
            over="a-1",
            key="gate:1",
            made_by="bob",
            reason="better by .25",
            evidence=evidence,
        )
    )
    assert made == started.promotions.newest()
    assert (made.number, made.promoted, made.over, made.made_by, made.reason) == (2, "b-2", "a-1", "bob", made.reason)
    assert made.evidence == evidence
    assert made.previous == started.promotions.history()[0].sha256
    assert started.maintenance.verify().faults == ()


def test_a_refusal_is_a_generation_and_leaves_the_promoted_model(started: Dataset) -> None:
    started.promotions.add(decided("refusal", "b-2", "a-1"))
    started.promotions.add(decided("promotion", "c-3", "a-1"))
    started.promotions.add(decided("refusal", "d-4", "a-1"))  # measured before c-3 was promoted: still on record
    assert promoted(started) == [("start", "a-1"), ("refusal", "a-1"), ("promotion", "c-3"), ("refusal", "c-3")]


def test_of_two_promoters_one_wins_and_the_other_is_told(started: Dataset) -> None:
    ready, results = threading.Barrier(8), dict[str, Generation | Conflict]()

    def promote(model_id: str) -> None:
        ready.wait()
        try:
            results[model_id] = started.promotions.add(decided("promotion", model_id, "a-1"))
        except Conflict as error:
            results[model_id] = error

    threads = [threading.Thread(target=promote, args=(f"m-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [model_id for model_id, result in results.items() if isinstance(result, Generation)]
    assert promoted(started) == [("start", "a-1"), ("promotion", winner)]
    told = [str(result) for result in results.values() if isinstance(result, Conflict)]
    assert len(told) == 7
    assert all(f"generation 2 by ann has made {winner} the promoted model since" in each for each in told)


def test_the_same_decision_is_written_once_also_by_racing_writers(started: Dataset) -> None:
    threads = [
        threading.Thread(target=started.promotions.add, args=(decided("refusal", "b-2", "a-1"),)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert promoted(started) == [("start", "a-1"), ("refusal", "a-1")]


@pytest.mark.parametrize(("moment", "written"), [("before", 1), ("after", 2)])
def test_a_killed_promoter_that_runs_again_promotes_once(started: Dataset, moment: str, written: int) -> None:
    def run(when: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", WRITER, started.uri, when], capture_output=True, text=True, check=False
        )

    assert run(moment).returncode == -9
    assert len(started.promotions.history()) == written
    assert run("never").stdout == "2\n"
    assert promoted(started) == [("start", "a-1"), ("promotion", "b-2")]


def test_a_lost_reply_is_no_second_generation(started: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    promotions, put = started.promotions, started.store.put_if_absent

    def lose_reply(key: str, data: bytes) -> None:
        put(key, data)
        raise StoreError("the reply was lost")

    monkeypatch.setattr(started.store, "put_if_absent", lose_reply)
    assert promotions.add(decided("promotion", "b-2", "a-1")).number == 2
    assert len(started.promotions.history()) == 2


def test_a_store_that_fails_is_reported_and_writes_nothing(started: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(key: str, data: bytes) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(started.store, "put_if_absent", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        started.promotions.add(decided("promotion", "b-2", "a-1"))
    assert len(started.promotions.history()) == 1


def test_each_rollback_goes_one_promotion_further_back(started: Dataset) -> None:
    for model_id, over in (("b-2", "a-1"), ("c-3", "b-2")):
        started.promotions.add(decided("promotion", model_id, over))
    assert find_rollback(started.promotions.history(), None) == "b-2"
    started.promotions.add(decided("rollback", "b-2", "c-3"))
    assert find_rollback(started.promotions.history(), None) == "a-1"
    assert find_rollback(started.promotions.history(), "c-3") == "c-3"
    started.promotions.add(decided("rollback", "a-1", "b-2"))
    with pytest.raises(NotFound, match="no earlier model"):
        find_rollback(started.promotions.history(), None)
    with pytest.raises(NotFound, match="'z-9' was never promoted; expected one of a-1, b-2, c-3"):
        find_rollback(started.promotions.history(), "z-9")


def test_a_changed_or_missing_generation_is_noticed(started: Dataset) -> None:
    started.promotions.add(decided("promotion", "b-2", "a-1"))
    folder = Path(started.uri) / "promotions"
    first = folder / "g00000001.json"
    whole = first.read_text()
    first.chmod(0o644)
    first.write_text(whole.replace("said so", "sad, so"))
    with pytest.raises(Corrupt, match="does not follow from generation 1"):
        started.promotions.history()
    assert [fault.key for fault in started.maintenance.verify().faults] == ["promotions/"]
    first.write_text("{}")
    with pytest.raises(Corrupt, match="damaged"):
        started.promotions.history()
    first.unlink()
    with pytest.raises(Corrupt, match="does not follow from generation 0"):
        started.promotions.history()
