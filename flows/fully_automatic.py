"""The main job as a Prefect flow: photographs -> image shards -> mask shards -> tables -> report.

Tasks are coarse (one a stage). The unit of retry is the shard, kept by the dataset's commit records: running the flow
again with the same photographs and settings continues where it stopped.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prefect import flow, task

from engine.model.weights import load_model
from flows.config import RunConfig, validated
from flows.progress import Counts, Reporter, WorkerCounts, reporter, say
from flows.report.write import report_path, write_report
from stages.cluster.pool import PoolConfig
from stages.cluster.progress import PlanProgress, PlanResult
from stages.cluster.run import run_plan
from stages.fully_automatic.plan import plan_masks
from stages.fully_automatic.worker import ShardWorker, expected_memory_bytes
from stages.ingest.ingest import IngestProgress, IngestReport, ingest_photos
from storage.dataset import Dataset
from storage.errors import StoreError
from storage.protocol.plans import Plan

FOLD_EVERY_S = 60.0
"""So that `gigamask query` follows a long run."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What `gigamask run --json` and `gigamask masks --json` print; earlier runs of the same plan count."""

    images: int
    rejects: int
    masks: int
    shards: int
    seconds: float
    """Of this run, start to end."""
    images_per_s: float
    """Of the masks stage of this run; 0 where nothing was left to do."""
    masks_per_s: float
    dataset: str
    report: str


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """What `gigamask ingest --json` prints."""

    images: int
    rejects: int
    unchanged: int
    """Known before under the same name and with the same bytes."""
    of_earlier_settings: int
    """Of these, stored under other ingest settings: they stay as those made them."""
    other_files: int
    """In the folders given, and no photographs."""
    shards: int
    seconds: float
    dataset: str


class ShardsMissing(ValueError):
    """Some shards could not be made; the others are committed, folded and in the report."""


@flow(name="fully-automatic")
def fully_automatic(photos: list[str], settings: dict[str, Any]) -> RunResult:
    """Photographs in, masks out; `settings` is a RunConfig as plain values. Raises ShardsMissing at the very end."""
    started = time.monotonic()
    config = validated(RunConfig, settings)
    ingested = ingest(photos, settings)
    try:
        results = masks(settings)
    finally:
        fold(config.dataset)  # what is committed answers queries, whatever stopped the rest
    return _result(config, results, len(ingested.rejects), started, report(config.dataset))


@flow(name="masks")
def only_masks(settings: dict[str, Any]) -> RunResult:
    """The fully automatic stage over the images that a dataset holds already. Raises as `fully_automatic`."""
    started = time.monotonic()
    config = validated(RunConfig, settings)
    try:
        results = masks(settings)
    finally:
        fold(config.dataset)
    return _result(config, results, 0, started, report(config.dataset))


@flow(name="ingest")
def only_ingest(photos: list[str], settings: dict[str, Any]) -> IngestResult:
    """Photographs into image shards and the tables, without masks."""
    started = time.monotonic()
    config = validated(RunConfig, settings)
    ingested = ingest(photos, settings)
    fold(config.dataset)
    return IngestResult(
        images=ingested.images,
        rejects=len(ingested.rejects),
        unchanged=ingested.unchanged,
        of_earlier_settings=ingested.stored_with_other_settings,
        other_files=ingested.other_files,
        shards=len(ingested.shards),
        seconds=round(time.monotonic() - started, 3),
        dataset=config.dataset,
    )


@task(name="ingest")
def ingest(photos: list[str], settings: dict[str, Any]) -> IngestReport:
    """Photographs to image shards; what cannot be used becomes a reject."""
    config = validated(RunConfig, settings)
    dataset = Dataset.open_or_create(config.dataset)
    with reporter("ingest") as progress:
        ingested = ingest_photos(photos, dataset, config.ingest, lambda now: progress(_ingest_counts(now)))
    if ingested.stored_with_other_settings:
        say(f"ingest: {ingested.stored_with_other_settings} photos stay as earlier ingest settings made them")
    return ingested


@task(name="masks")
def masks(settings: dict[str, Any]) -> list[PlanResult]:
    """Image shards to mask shards, on Ray; shards that could not be made are named in the results."""
    config = validated(RunConfig, settings)
    dataset = Dataset.open(config.dataset)
    plans, pool = _planned(dataset, config)
    make_worker = partial(ShardWorker, config.model, config.generate, dataset.uri)
    with reporter("masks") as progress:
        watch = _Watch(dataset, progress)
        return [run_plan(dataset, plan, make_worker, pool, watch) for plan in plans]


def _planned(dataset: Dataset, config: RunConfig) -> tuple[list[Plan], PoolConfig]:
    """The plans, and the pool with the memory that this model's workers need; the model is gone thereafter."""
    model = load_model(config.model)
    needed = config.pool.worker_memory_bytes or expected_memory_bytes(model)
    return plan_masks(dataset, model, config.generate), replace(config.pool, worker_memory_bytes=needed)


class _Watch:
    """Follows a plan: shows how far it is, says once what goes amiss, folds every minute."""

    def __init__(self, dataset: Dataset, show: Reporter) -> None:
        self._dataset, self._show = dataset, show
        self._deaths = self._waiting_workers = 0
        self._folded = time.monotonic()

    def __call__(self, now: PlanProgress) -> None:
        if now.deaths > self._deaths:
            say(f"masks: a worker died ({now.deaths} so far); its shards are handed out again")
        self._deaths = now.deaths
        if now.waiting_workers > self._waiting_workers:
            say(f"masks: {now.waiting_workers} workers still start or wait for room; {now.workers} are at work")
        self._waiting_workers = max(self._waiting_workers, now.waiting_workers)
        self._show(_mask_counts(now))
        if time.monotonic() - self._folded > FOLD_EVERY_S:
            try:
                self._dataset.fold()
            except StoreError as error:  # the workers go on; the fold at the end takes these records, too, or raises
                say(f"masks: what is committed is not in the tables yet, next try in {FOLD_EVERY_S:.0f} s ({error})")
            self._folded = time.monotonic()


@task(name="fold")
def fold(dataset_uri: str) -> None:
    """Commit records into the tables that `gigamask query` reads."""
    Dataset.open(dataset_uri).fold()


@task(name="report")
def report(dataset_uri: str) -> str:
    """The HTML report of the dataset's newest state; returns its path."""
    dataset = Dataset.open(dataset_uri)
    return str(write_report(dataset, report_path(dataset)))


def _ingest_counts(now: IngestProgress) -> Counts:
    return Counts(done=now.done, total=now.total, new=now.done, rejects=now.rejects)


def _mask_counts(now: PlanProgress) -> Counts:
    return Counts(
        done=now.images,
        total=now.images_total,
        new=now.new_images,
        masks=now.masks,
        new_masks=now.new_masks,
        rejects=now.rejects,
        workers=[
            WorkerCounts(place=each.place, images=each.images, images_per_s=each.images_per_s) for each in now.by_worker
        ],
    )


def _result(config: RunConfig, results: list[PlanResult], ingest_rejects: int, started: float, page: str) -> RunResult:
    """Raises ShardsMissing where a plan is not complete."""
    failed = {shard: why for result in results for shard, why in result.failed.items()}
    if failed:
        shard, why = next(iter(failed.items()))
        raise ShardsMissing(
            f"{len(failed)} mask shards could not be made ({shard}: {why}); the others are committed and in {page}; "
            "run the same command again to try those once more"
        )
    masks_s = sum(result.seconds for result in results if result.new_images)
    commits = {
        commit.address: commit for result in results for commit in result.commits
    }.values()  # a redo's are its plan's
    return RunResult(
        images=sum(commit.images for commit in commits),
        rejects=ingest_rejects + sum(len(commit.rejects) for commit in commits),
        masks=sum(commit.masks for commit in commits),
        shards=len(commits),
        seconds=round(time.monotonic() - started, 3),
        images_per_s=round(sum(result.new_images for result in results) / masks_s, 3) if masks_s else 0.0,
        masks_per_s=round(sum(result.new_masks for result in results) / masks_s, 3) if masks_s else 0.0,
        dataset=config.dataset,
        report=page,
    )
