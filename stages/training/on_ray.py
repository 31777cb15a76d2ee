"""Training job on Ray Train: several processes, on CPUs (gloo) or on GPUs (nccl), that share every batch.

Each process computes its part of the global batch, and all processes average their gradients. The batch and the
gradients therefore do not depend on the number of processes. Batch norm is the exception: its statistics are those of
the process's own part.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, get_context, report
from ray.train.torch import TorchConfig, TorchTrainer

from engine.training.peers import Peers
from stages.cluster.pool import PoolConfig
from stages.cluster.session import ray_session
from stages.training.job import TrainedModel, TrainingJob, split_images
from stages.training.train_job import train_job
from stages.training.work_folder import PROGRESS_NAME
from storage.dataset import Dataset
from storage.objects.atomic import replace_file

RESTARTS = 3
"""Maximum number of times that a training continues from its checkpoint after a process died."""
POLL_S = 1.0
"""Time in seconds between reads of the first process's log."""
RESULT_NAME = "result.json"


def train_job_on_cluster(
    job: TrainingJob, *, workers: int, device: str, address: str | None, log: Callable[[str], None]
) -> TrainedModel:
    """Train as `train_job` does, in `workers` processes. All machines must share the job's work folder.

    Raises:
        NotFound: There is no such dataset or snapshot.
        ValueError: The batch cannot be divided evenly among the processes, or `train_job` raises a ValueError.
        RuntimeError: More processes died than a training continues after (`RESTARTS`).
    """
    # Refuse what cannot work before Ray starts
    Peers(rank=0, count=workers).positions_of(job.train.batch_size)
    split_images(job, Dataset.open(job.dataset))

    # Train
    with ray_session(PoolConfig(address=address)):
        trainer = TorchTrainer(
            _train,
            train_loop_config={"job": job, "device": device},
            torch_config=TorchConfig(backend="nccl" if device == "cuda" else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=device == "cuda"),
            run_config=RunConfig(
                name="ray", storage_path=str(job.work_folder), failure_config=FailureConfig(max_failures=RESTARTS)
            ),
        )
        with _tail_log(job, log):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise RuntimeError(f"the training failed in one of its {workers} processes: {error}") from error
    result = job.work_folder / RESULT_NAME
    return TrainedModel(**json.loads(result.read_text()))


def _train(config: dict[str, Any]) -> None:
    """Take part in the training as one process."""
    job, device = config["job"], config["device"]
    torch.set_num_threads(1)
    context = get_context()
    if device == "cuda":
        device = f"cuda:{torch.cuda.current_device()}"  # Ray Train has chosen it
    peers = Peers(rank=context.get_world_rank(), count=context.get_world_size(), device=device)
    trained = train_job(job, peers, log=lambda line: None)
    if trained is not None:
        result = json.dumps(asdict(trained)).encode()
        replace_file(job.work_folder / RESULT_NAME, lambda file: file.write(result))
    report({"steps": job.train.total_steps})


@contextmanager
def _tail_log(job: TrainingJob, log: Callable[[str], None]) -> Iterator[None]:
    """Log the lines that the first process appends to its log in the work folder, as they appear."""
    path, over = job.work_folder / PROGRESS_NAME, threading.Event()
    logged_bytes = path.stat().st_size if path.exists() else 0

    def follow() -> None:
        nonlocal logged_bytes
        while True:
            last_look = over.wait(POLL_S)
            if path.exists():
                for line in path.read_bytes()[logged_bytes:].splitlines(keepends=True):
                    if line.endswith(b"\n"):  # else it is still being written
                        log(line.decode().rstrip("\n"))
                        logged_bytes += len(line)
            if last_look:
                return

    reader = threading.Thread(target=follow, name="training-progress")
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
