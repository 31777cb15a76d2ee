import pytest

from stages.cluster.ledger import PATIENCE, Job, Ledger, PlanStopped
from storage.protocol.plans import PlannedShard

SHARDS = [PlannedShard(name=name) for name in ("a", "b", "c")]


def taken(ledger: Ledger, *, is_idle: bool = True) -> Job:
    job = ledger.take(is_idle=is_idle)
    assert job is not None
    return job


def test_shards_are_handed_out_in_order_and_once() -> None:
    ledger = Ledger(SHARDS)
    jobs = [taken(ledger) for _ in SHARDS]
    assert [job.shard.name for job in jobs] == ["a", "b", "c"]
    assert ledger.take(is_idle=True) is None
    assert not ledger.is_over
    for job in jobs:
        ledger.record_done(job)
    assert ledger.is_over
    assert ledger.committed == ["a", "b", "c"]


def test_a_shard_whose_worker_died_goes_back_to_the_queue() -> None:
    ledger = Ledger(SHARDS[:2])
    ledger.record_death([taken(ledger), taken(ledger)])
    assert (ledger.deaths, ledger.waiting) == (1, 2)
    assert taken(ledger) == Job(shard=SHARDS[0])


def test_a_shard_that_killed_twice_is_isolated_on_a_worker_of_its_own() -> None:
    ledger = Ledger(SHARDS[:1])
    ledger.record_death([taken(ledger)])
    ledger.record_death([taken(ledger)])
    assert ledger.take(is_idle=False) is None
    isolated = taken(ledger)
    assert isolated == Job(shard=SHARDS[0], isolated=True)
    ledger.record_failure(isolated, OSError("disk full"))
    assert ledger.take(is_idle=False) is None
    assert taken(ledger) == isolated


def test_a_shard_that_raises_twice_is_set_aside_and_the_others_go_on() -> None:
    ledger = Ledger(SHARDS[:2])
    first, second = taken(ledger), taken(ledger)
    ledger.record_failure(first, OSError("disk full"))
    ledger.record_done(second)
    ledger.record_failure(taken(ledger), OSError("disk full"))
    assert ledger.is_over
    assert (ledger.failed, ledger.committed) == ({"a": "OSError: disk full"}, ["b"])


def test_nothing_but_deaths_stops_the_run() -> None:
    ledger = Ledger(SHARDS)
    for _ in range(PATIENCE):
        ledger.record_death([taken(ledger)])
    with pytest.raises(PlanStopped, match="workers died one after the other"):
        ledger.record_death([taken(ledger)])


def test_a_cloud_that_takes_many_machines_back_at_once_does_not_stop_the_run() -> None:
    ledger = Ledger([PlannedShard(name=str(number)) for number in range(64)])
    ledger.workers = 64
    jobs = [taken(ledger) for _ in range(64)]
    for job in jobs:
        ledger.record_death([job])
    assert (ledger.deaths, ledger.waiting, ledger.left) == (64, 64, 64)


def test_nothing_but_failures_stops_the_run_and_says_why() -> None:
    ledger = Ledger([PlannedShard(name=str(number)) for number in range(PATIENCE + 1)])
    for _ in range(PATIENCE):
        ledger.record_failure(taken(ledger), OSError("disk full"))
    with pytest.raises(PlanStopped, match="shards failed one after the other: disk full"):
        ledger.record_failure(taken(ledger), OSError("disk full"))


def test_a_shard_made_in_between_makes_patience_new() -> None:
    ledger = Ledger([PlannedShard(name=str(number)) for number in range(3 * PATIENCE)])
    for number in range(2 * PATIENCE):
        ledger.record_death([taken(ledger)])
        if number % 5 == 0:
            ledger.record_done(taken(ledger))
    assert ledger.deaths == 2 * PATIENCE
