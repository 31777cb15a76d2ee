"""A training job through Ray Train: several processes, on CPUs by gloo or on GPUs by nccl, that share every batch.

Each of them computes its pictures of the global batch and all average their gradients, so that the batch and what it
teaches do not depend on how many there are. Batch norm is the exception: its statistics are of a process's own share.
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
from stages.training.job import PROGRESS_NAME, TrainedModel, TrainingJob, count_job_images, run_job
from storage.dataset import Dataset
from storage.objects.atomic import replace_file

RESTARTS = 3
"""Times that a training whose process died goes on from its checkpoint."""
POLL_S = 1.0
RESULT_NAME = "result.json"


def run_job_on_cluster(
    job: TrainingJob, *, workers: int, device: str, address: str | None, say: Callable[[str], None]
) -> TrainedModel:
    """`run_job` by so many processes. The job's work folder must be one that all their machines share.

    Raises ValueError for a batch that does not divide among them, what `run_job` raises; RuntimeError when
    processes failed more often than they are started again.
    """
    Peers(rank=0, count=workers).positions_of(job.train.batch_size)
    count_job_images(job, Dataset.open(job.dataset))  # what is wrong with the data is said before Ray starts
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
        with _read_aloud(job, say):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise RuntimeError(f"the training failed in one of its {workers} processes: {error}") from error
    result = job.work_folder / RESULT_NAME
    return TrainedModel(**json.loads(result.read_text()))


def _train(config: dict[str, Any]) -> None:
    """What each process does."""
    job, device = config["job"], config["device"]
    torch.set_num_threads(1)
    context = get_context()
    if device == "cuda":
        device = f"cuda:{torch.cuda.current_device()}"  # Ray Train has chosen it
    peers = Peers(rank=context.get_world_rank(), count=context.get_world_size(), device=device)
    trained = run_job(job, peers, say=lambda line: None)
    if trained is not None:
        result = json.dumps(asdict(trained)).encode()
        replace_file(job.work_folder / RESULT_NAME, lambda file: file.write(result))
    report({"steps": job.train.total_steps})


@contextmanager
def _read_aloud(job: TrainingJob, say: Callable[[str], None]) -> Iterator[None]:
    """Say the lines that the first process adds to the work folder, as they come."""
    path, over = job.work_folder / PROGRESS_NAME, threading.Event()
    said = path.stat().st_size if path.exists() else 0

    def follow() -> None:
        nonlocal said
        while True:
            last_look = over.wait(POLL_S)
            if path.exists():
                for line in path.read_bytes()[said:].splitlines(keepends=True):
                    if line.endswith(b"\n"):  # else it is still being written
                        say(line.decode().rstrip("\n"))
                        said += len(line)
            if last_look:
                return

    reader = threading.Thread(target=follow, name="training-progress")
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
