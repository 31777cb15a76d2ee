import pytest

from stages.cluster.pool import Machine, PoolConfig, PoolSize, pool_size

GIB = 2**30


def machine(cores: int, gpus: int = 0, memory_gib: int = 64) -> Machine:
    return Machine(cores=cores, gpus=gpus, memory_bytes=memory_gib * GIB)


@pytest.mark.parametrize(
    ("config", "machines", "shards", "expected"),
    [
        (PoolConfig(), [machine(2)], 64, (2, 1, 0)),
        (PoolConfig(), [machine(16)], 4, (4, 4, 0)),
        (PoolConfig(), [machine(16, memory_gib=5)], 64, (2, 1, 0)),
        (PoolConfig(worker_memory_bytes=9 * GIB), [machine(16)], 64, (7, 1, 0)),
        (PoolConfig(), [machine(2, memory_gib=1)], 64, (1, 1, 0)),
        (PoolConfig(), [machine(16, gpus=4)], 64, (4, 4, 1)),
        (PoolConfig(), [machine(64, gpus=2)], 64, (2, 8, 1)),
        (PoolConfig(), [machine(2, gpus=4)], 64, (2, 1, 1)),
        (PoolConfig(workers=2, threads=3), [machine(6)], 64, (2, 3, 0)),
        (PoolConfig(worker_gpus=2), [machine(16, gpus=4)], 64, (2, 8, 2)),
        (PoolConfig(), [machine(32), machine(16, gpus=2)], 64, (2, 8, 1)),
    ],
)
def test_workers_and_threads_follow_the_machines(
    config: PoolConfig, machines: list[Machine], shards: int, expected: tuple[int, int, int]
) -> None:
    workers, threads, gpus = expected
    assert pool_size(config, machines, shards) == PoolSize(workers=workers, threads=threads, gpus_per_worker=gpus)


def test_a_worker_has_no_more_threads_than_a_machine_has_cores() -> None:
    size = pool_size(PoolConfig(address="auto"), [machine(4)] * 3, shards=1)
    assert (size.workers, size.threads) == (1, 4)


@pytest.mark.parametrize(
    ("config", "has", "message"),
    [
        (PoolConfig(threads=4), machine(2), r"pool.workers 1 with pool.threads 4: there are 2 cores, .*at most 0"),
        (PoolConfig(workers=8), machine(2), r"pool.workers 8 with pool.threads 1: there are 2 cores, .*at most 2"),
        (PoolConfig(workers=2, threads=2), machine(3), r"pool.workers 2 with pool.threads 2: there are 3 cores"),
        (PoolConfig(workers=3), machine(16, gpus=2), r"pool.workers 3 .*: there are 16 cores and 2 GPUs, .*a GPU for"),
    ],
)
def test_workers_for_which_there_is_no_room_are_refused(config: PoolConfig, has: Machine, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool_size(config, [has], shards=64)


def test_a_cluster_that_may_grow_is_asked_for_what_is_wanted() -> None:
    size = pool_size(PoolConfig(address="ray://head:10001", workers=8, threads=4), [machine(2)], shards=64)
    assert (size.workers, size.threads) == (8, 4)


def test_a_cluster_whose_gpus_are_yet_to_come_is_asked_for_them() -> None:
    config = PoolConfig(address="auto", workers=8, threads=6, worker_gpus=1)
    assert pool_size(config, [machine(2)], shards=64) == PoolSize(workers=8, threads=6, gpus_per_worker=1)


@pytest.mark.parametrize("name", ["workers", "threads", "worker_gpus", "worker_memory_bytes"])
def test_a_pool_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0, expected at least 1"):
        PoolConfig(**{name: 0})
