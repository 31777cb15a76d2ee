"""Pool size of a plan of mask shards: the number of workers and of their cores, from what the machines have. No Ray."""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_GPU_WORKER_THREADS = 8
"""Maximum number of cores of a worker with a GPU, used if the number is not given."""
DEFAULT_WORKER_MEMORY_BYTES = 2 * 2**30
"""Memory that a worker is expected to need if nothing estimated it: enough for the seed and vit_b."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Settings of where workers run, how many there are, and what resources each worker gets."""

    address: str | None = None
    """Address of a Ray cluster ("auto", "ray://host:10001"). None: Ray is started on this machine for the run."""
    workers: int | None = None
    """Number of workers. None: one per GPU, or as many as cores, memory and shards allow; more as a cluster grows."""
    threads: int | None = None
    """Number of cores of a worker. None: 1 without GPUs, or more if there are fewer shards than cores; at most 8 with
    GPUs.
    """
    worker_gpus: int | None = None
    """Number of GPUs of a worker. None: 1 if the cluster has GPUs when the run starts. Give 1 if GPUs join the cluster
    later.
    """
    worker_memory_bytes: int | None = None
    """Memory in bytes that a worker is expected to need; it limits how many workers start. None: estimated from the
    model.
    """
    object_store_bytes: int = 128 * 2**20
    """Size in bytes of Ray's shared memory on this machine; shards do not pass through it."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "worker_gpus", "worker_memory_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Resources that one machine of the cluster offers."""

    cores: int
    gpus: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """Number of workers to start and the resources of each worker."""

    workers: int
    threads: int
    """Number of cores of each worker."""
    gpus_per_worker: int


def pool_size(config: PoolConfig, machines: Sequence[Machine], shards: int) -> PoolSize:
    """Choose the number of workers and the resources of each worker; numbers given in `config` are kept.

    Raises:
        ValueError: This machine has no room for the workers, so that they would wait for ever. With `config.address`,
            which names a cluster that may grow, this error is never raised.
    """
    # Cores and GPUs of each worker
    cores, gpus = sum(machine.cores for machine in machines), sum(machine.gpus for machine in machines)
    widest = max((machine.cores for machine in machines), default=0)  # a worker lives on one machine
    worker_gpus = config.worker_gpus or int(gpus > 0)
    if gpus:
        threads = min(MAX_GPU_WORKER_THREADS, max(1, cores * worker_gpus // gpus), max(1, widest))
    else:
        threads = min(max(1, cores // shards), max(1, widest))
    threads = config.threads or threads

    # Workers that fit
    places = sum(_places(machine, threads, worker_gpus) for machine in machines)
    max_workers = places
    if not worker_gpus:
        needed_bytes = config.worker_memory_bytes or DEFAULT_WORKER_MEMORY_BYTES
        max_workers = sum(machine.memory_bytes for machine in machines) // needed_bytes
    workers = config.workers or max(1, min(max_workers, shards, places))

    if config.address is None and workers > places:
        raise ValueError(
            f"pool.workers {workers} with pool.threads {threads}: there are {cores} cores"
            + (f" and {gpus} GPUs" if worker_gpus else "")
            + ", expected workers x threads to fit"
            + (" and a GPU for each worker" if worker_gpus else "")
            + f" (with {threads} threads at most {places} workers); leave both out to have them chosen"
        )
    return PoolSize(workers=workers, threads=threads, gpus_per_worker=worker_gpus)


def _places(machine: Machine, threads: int, worker_gpus: int) -> int:
    """Count the workers that fit on a machine."""
    by_cores = machine.cores // threads
    return min(by_cores, machine.gpus // worker_gpus) if worker_gpus else by_cores
