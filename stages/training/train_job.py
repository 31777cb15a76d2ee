"""Training job from a snapshot to a new model version: train, calibrate the IoU head, publish weights and card.

snapshot + procedural scenes -> windows -> train -> calibrate on held-out images -> measure -> models/<model_id>/

The id of an image decides whether the image is held out, the same in every snapshot. A held-out image is never trained
on; it serves to calibrate and to measure.
"""

import copy
import time
from collections.abc import Callable

import torch

from engine.training.peers import Peers
from engine.training.progress import StepLines
from engine.training.sources import MixedSource, Source
from engine.training.train import train
from stages.training.job import OpenJob, TrainedModel, TrainingJob, open_job
from stages.training.publish import publish_trained
from stages.training.round_source import RoundSource
from stages.training.snapshot_source import SplitSide
from stages.training.work_folder import WorkLog


def train_job(job: TrainingJob, peers: Peers, log: Callable[[str], None]) -> TrainedModel | None:
    """Train, or continue a training, as one of several processes.

    The process of rank 0 publishes and returns the model. The other processes return None.

    Raises:
        NotFound: There is no such dataset or snapshot.
        ValueError: The snapshot has no masks, there is no such parent, or the work folder belongs to another network.
    """
    opened = open_job(job, peers.device)
    work_log = WorkLog(job.work_folder, log) if peers.rank == 0 else None
    if work_log:
        work_log(
            f"training {job.name} from {opened.parent.model_id} on {opened.split.trained} images of {job.snapshot}, "
            f"{opened.split.held_out} held out, on {peers.count} x {peers.device}"
        )

    # Train a copy of the parent: the parent is measured beside it
    began = time.monotonic()
    sam = copy.deepcopy(opened.parent.sam)
    sam.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = train(
        job.train,
        sam,
        _training_source(opened),
        job.work_folder,
        peers=peers,
        on_step=StepLines(job.train, work_log) if work_log else None,
    )

    # Calibrate, measure and publish in the first process
    if work_log is None:
        return None
    work_log("calibrating and measuring on held-out images")
    return publish_trained(opened, trained, peers.device, seconds=time.monotonic() - began, log=work_log)


def _training_source(opened: OpenJob) -> Source:
    """Mix the snapshot's training images with scenes, or those of new rounds with replay."""
    data = opened.job.data
    if data.rounds:
        return _rounds_and_replay(opened)
    images, fraction = opened.images(held_out=False), data.scene_share
    return MixedSource([(images, 1 - fraction), (opened.scenes, fraction)]) if fraction else images


def _rounds_and_replay(opened: OpenJob) -> Source:
    """Mix the masks of new rounds with scenes and with the rounds that the parent was trained on."""
    data, side = opened.job.data, SplitSide(held_out_every=opened.job.data.held_out_every, held_out=False)
    replay: list[Source] = [opened.scenes]
    if data.replayed_rounds:
        replay.append(RoundSource(opened.dataset, opened.job.snapshot, data.replayed_rounds, side))
    parts = [(opened.images(held_out=False), 1 - data.replay_fraction)]
    parts += [(source, data.replay_fraction / len(replay)) for source in replay]
    return MixedSource([(source, weight) for source, weight in parts if weight > 0])
