"""How many workers a plan of mask shards gets, and how many cores each: by what the machines have. Pure, no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_GPU_WORKER_THREADS = 8
DEFAULT_WORKER_MEMORY_BYTES = 2 * 2**30  # where nobody estimated: enough for the seed and vit_b


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Where the workers run and how many there are."""

    address: str | None = None
    """Of a Ray cluster ("auto", "ray://host:10001"); None: this machine, for the time of the run."""
    workers: int | None = None
    """None: one per GPU; without GPUs as many as cores, memory and shards allow; more as a cluster grows."""
    threads: int | None = None
    """Cores of a worker; None: 1, and more where there are fewer shards than cores."""
    worker_gpus: int | None = None
    """GPUs of a worker; None: one where the cluster has GPUs as it is started. Say 1 where they are yet to come."""
    worker_memory_bytes: int | None = None
    """What a worker is expected to need; no more start than fit. None: estimated from the model."""
    object_store_bytes: int = 128 * 2**20
    """Of Ray's shared memory on this machine; shards do not pass through it."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "worker_gpus", "worker_memory_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine of the cluster offers."""

    cores: int
    gpus: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """What is started: so many workers, with so many cores and, where there are GPUs, one of them each."""

    workers: int
    threads: int
    gpus_per_worker: int


def pool_size(config: PoolConfig, machines: Sequence[Machine], shards: int) -> PoolSize:
    """The configured numbers, and the best ones for those not given.

    Raises ValueError where the machines are all there will be (no address is given) and have no room for the workers:
    Ray would let those wait for ever. A cluster of an address may grow.
    """
    cores, gpus = sum(machine.cores for machine in machines), sum(machine.gpus for machine in machines)
    widest = max((machine.cores for machine in machines), default=0)  # a worker lives on one machine
    worker_gpus = config.worker_gpus or int(gpus > 0)
    if gpus:
        threads = min(MAX_GPU_WORKER_THREADS, max(1, cores * worker_gpus // gpus), max(1, widest))
    else:
        threads = min(max(1, cores // shards), max(1, widest))
    threads = config.threads or threads
    places = sum(_places(machine, threads, worker_gpus) for machine in machines)
    most = places
    if not worker_gpus:
        needed_bytes = config.worker_memory_bytes or DEFAULT_WORKER_MEMORY_BYTES
        most = sum(machine.memory_bytes for machine in machines) // needed_bytes
    workers = config.workers or max(1, min(most, shards, places))
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
    by_cores = machine.cores // threads
    return min(by_cores, machine.gpus // worker_gpus) if worker_gpus else by_cores
