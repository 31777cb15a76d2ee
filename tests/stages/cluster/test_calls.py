"""Calls on a real Ray pool: results as they come, failures beside them, and the calls of a dead worker again."""

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
from ray import cloudpickle

from stages.cluster.calls import call_on_pool
from stages.cluster.ledger import PlanStopped
from stages.cluster.pool import PoolConfig
from stages.cluster.session import ray_session

TWO = PoolConfig(workers=2, threads=1)

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers below reach their actors by their code

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    with ray_session(TWO, num_cpus=2):
        yield


class Squares:
    """Squares numbers; 3 is a bad one, and the first 5 kills the process that meets it."""

    def __init__(self, tombstone: Path) -> None:
        self._tombstone = tombstone

    def __call__(self, number: int) -> int:
        if number == 3:
            raise ValueError("three is bad")
        if number == 5 and not self._tombstone.exists():
            self._tombstone.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number


class Broken:
    def __init__(self) -> None:
        raise ValueError("no such model")

    def __call__(self, number: int) -> int:
        return number


def test_every_item_has_a_result_or_a_failure_though_a_worker_is_killed(tmp_path: Path) -> None:
    found = dict(call_on_pool(partial(Squares, tmp_path / "dead"), range(20), TWO))
    assert (tmp_path / "dead").exists()
    failure = found.pop(3)
    assert isinstance(failure, ValueError)
    assert str(failure) == "three is bad"
    assert found == {number: number * number for number in range(20) if number != 3}


def test_a_worker_that_cannot_be_made_ends_the_calls() -> None:
    with pytest.raises(PlanStopped, match="no such model"):
        list(call_on_pool(Broken, range(3), TWO))


def test_the_actors_end_with_the_iterator_and_nothing_starts_for_no_items(tmp_path: Path) -> None:
    assert list(call_on_pool(Broken, [], TWO)) == []
    calls = call_on_pool(partial(Squares, tmp_path / "dead"), range(1000), TWO)
    next(calls)
    calls.close()  # type: ignore[attr-defined]
    with ray_session(TWO):
        assert ray.is_initialized()  # the session that was there before stays
