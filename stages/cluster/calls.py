"""Calls on Ray that are harmless to repeat: each worker is one actor, and each call gives it one item.

Ray itself repeats the calls of an actor that died. A run of mask shards is stricter: see `stages/cluster/run.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
import torch
from ray import cloudpickle
from ray.exceptions import RayTaskError

from stages.cluster.pool import PoolConfig, PoolSize, pool_size
from stages.cluster.session import machines, ray_session
from stages.cluster.worker_handle import CANNOT_START, WORKER_DIED, cannot_start

CALLS_IN_FLIGHT = 2
"""Maximum number of items in the hands of one worker: while one is computed, the result of the other travels."""
MAX_RETRIES = 3
"""Maximum number of times that a call is repeated because its worker died."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def call_on_pool(
    make_worker: Callable[[], Callable[[Item], Result]], items: Sequence[Item], config: PoolConfig
) -> Iterator[tuple[Item, Result | Exception]]:
    """Call workers with each item, the first items first; yield items and results in the order in which they come.

    `make_worker` is called in the process of each Ray actor. A call that failed gives its exception as the result. The
    actors end with the iterator.

    Raises:
        ValueError: This machine has no room for the workers.
        PlanStopped: A worker can never start.
        ConnectionError: No Ray cluster answers at `config.address`.
    """
    if not items:
        return
    with ray_session(config):
        size = pool_size(config, machines(), len(items))
        pickled = cloudpickle.dumps(make_worker)
        actors = [_actor_class(size).remote(pickled, size.threads) for _ in range(size.workers)]
        try:
            yield from _calls(actors, items)
        finally:
            for actor in actors:
                ray.kill(actor)


class CallActor:
    """Ray actor that calls one worker."""

    def __init__(self, make_worker: bytes, threads: int) -> None:
        torch.set_num_threads(threads)
        self._worker = cloudpickle.loads(make_worker)()

    def call(self, item: Any) -> Any:
        """Call the worker with an item."""
        return self._worker(item)


def _actor_class(size: PoolSize) -> Any:
    return ray.remote(
        num_cpus=size.threads, num_gpus=size.gpus_per_worker, max_restarts=-1, max_task_retries=MAX_RETRIES
    )(CallActor)


def _calls(actors: Sequence[Any], items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
    waiting = iter(items)
    under_way: dict[ray.ObjectRef[Any], tuple[Any, Item]] = {}

    def start(actor: Any) -> None:
        for item in waiting:
            under_way[actor.call.remote(item)] = (actor, item)
            return

    for _ in range(CALLS_IN_FLIGHT):
        for actor in actors:
            start(actor)
    while under_way:
        (ended,), _ = ray.wait(list(under_way), num_returns=1)
        actor, item = under_way.pop(ended)
        start(actor)
        yield item, _result(ended)


def _result(call: "ray.ObjectRef[Any]") -> Any:
    try:
        return ray.get(call)
    except CANNOT_START as error:
        raise cannot_start(error) from error
    except RayTaskError as error:
        return error.cause if isinstance(error.cause, Exception) else error
    except WORKER_DIED as error:
        if getattr(error, "actor_init_failed", False):
            raise cannot_start(error) from error
        return error
