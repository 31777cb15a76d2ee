"""The flow of the main job: photos -> image shards -> mask shards -> tables -> report.

The flow has one task for each stage. The unit of retry is the shard, because commit records state which shards are
done: the same photos and settings, run again, continue where the flow stopped.

Where nothing is to be done, nothing heavy is imported: torch and Ray come with the first missing shard, matplotlib with
a report that is not there yet.
"""

import time
from dataclasses import dataclass, replace
from functools import partial

from engine.model.identity import identify_model
from flows.config.run import RunConfig
from flows.orchestration import flow, task
from flows.progress import Counts, Reporter, WorkerCounts, log, print_lines, reporter
from flows.report.state import is_current, report_path
from stages.cluster.limits import check_addresses
from stages.cluster.pool import PoolConfig
from stages.cluster.progress import PlanProgress, PlanResult, count_finished
from stages.fully_automatic.plan import names_model, plan_masks
from stages.ingest.ingest import IngestProgress, IngestReport, ingest_photos
from storage.dataset import Dataset
from storage.errors import StoreError
from storage.protocol.plans import Plan

FOLD_EVERY_S = 60.0
"""Time between two folds during a run, in seconds; `gigamask query` shows a long run's masks with this delay."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of `gigamask run` and `gigamask masks`. Counts include earlier runs of the same plan."""

    images: int
    rejects: int
    masks: int
    shards: int
    seconds: float
    """Duration of this run, in seconds."""
    images_per_s: float
    """Images per second of this run's fully automatic stage; 0 where nothing was left to do."""
    masks_per_s: float
    """Masks per second of this run's fully automatic stage; 0 where nothing was left to do."""
    dataset: str
    report: str
    """Path of the HTML report."""


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """Result of `gigamask ingest`, with the numbers that --json prints."""

    images: int
    rejects: int
    unchanged: int
    """Number of photos that the dataset held before, under the same name and with the same bytes."""
    of_earlier_settings: int
    """Number of unchanged photos whose images have other ingest settings; those images stay as they are."""
    other_files: int
    """Number of files in the given folders that are not photos."""
    shards: int
    seconds: float
    dataset: str


class ShardsMissing(ValueError):
    """Failure to make some shards; all other shards are committed, folded and in the report."""


@flow("fully-automatic")
def fully_automatic(photos: list[str], config: RunConfig) -> RunResult:
    """Turn photos into masks: image shards, mask shards, tables, report.

    Raises:
        ShardsMissing: Some shards failed. The error is raised after all other work is done.
    """
    started = time.monotonic()
    ingested = ingest(photos, config)
    try:
        results = masks(config)
    finally:
        fold(config.dataset)  # committed shards can be queried, whatever stopped the others
    page = report(config.dataset)
    _check_ingested(ingested)
    return _result(config, results, len(ingested.rejects), started, page)


@flow("masks")
def mask_dataset(config: RunConfig, *, only_unmasked: bool = False) -> RunResult:
    """Run the fully automatic stage on the images that a dataset holds, or on those that no model has masked.

    Raises:
        ShardsMissing: Some mask shards failed. The error is raised after all other work is done.
    """
    started = time.monotonic()
    try:
        results = masks(config, only_unmasked=only_unmasked)
    finally:
        fold(config.dataset)
    page = report(config.dataset)
    return _result(config, results, 0, started, page)


@flow("ingest")
def add_photos(photos: list[str], config: RunConfig) -> IngestResult:
    """Turn photos into image shards and table rows, without masks.

    Raises:
        ShardsMissing: Some image shards failed. The error is raised after all other work is done.
    """
    started = time.monotonic()
    ingested = ingest(photos, config)
    fold(config.dataset)
    _check_ingested(ingested)
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


@task("ingest")
def ingest(photos: list[str], config: RunConfig) -> IngestReport:
    """Write photos into image shards; photos that cannot be used become rejects."""
    dataset = Dataset.open_or_create(config.dataset)
    with reporter("ingest") as progress:
        ingested = ingest_photos(photos, dataset, config.ingest, lambda now: progress(_ingest_counts(now)))
    if ingested.stored_with_other_settings:
        unsearched = "; this ingest searched none of them for faces" if config.ingest.privacy.faces != "none" else ""
        many = ingested.stored_with_other_settings
        log(f"ingest: {many} photos stay as earlier ingest settings made them{unsearched}")
    return ingested


@task("masks")
def masks(config: RunConfig, *, only_unmasked: bool = False) -> list[PlanResult]:
    """Turn image shards into mask shards with Ray; of two commands at the same plan, the second waits for the first.

    Returns:
        Result of each plan, which names the shards that failed.

    Raises:
        ValueError: The model cannot be loaded; nothing is planned.
    """
    dataset = Dataset.open(config.dataset)
    model = identify_model(config.model)
    if not names_model(dataset, model):
        config = replace(config, pool=_expect_memory(config))  # loads the model: an unusable one leaves no plan
    plans = plan_masks(dataset, model, config.generate, only_unmasked=only_unmasked)
    with reporter("masks") as progress:
        watch = _Watch(dataset, progress)
        if any(dataset.missing(plan) for plan in plans):
            return _make_masks(dataset, plans, config, watch)
        return [count_finished(dataset, plan, watch) for plan in plans]


@task("fold")
def fold(dataset_uri: str) -> None:
    """Fold commit records into the tables that `gigamask query` reads."""
    Dataset.open(dataset_uri).fold(on_records=print_lines("fold", "records"))


@task("report")
def report(dataset_uri: str) -> str:
    """Write the HTML report of the dataset's newest state, unless it is there, and return its path."""
    dataset = Dataset.open(dataset_uri)
    path = report_path(dataset)
    if is_current(path, dataset):
        log(f"report: {path} shows the newest state and is not written again")
        return str(path)
    from flows.report.write import write_report  # matplotlib

    return str(write_report(dataset, path))


def _make_masks(dataset: Dataset, plans: list[Plan], config: RunConfig, watch: "_Watch") -> list[PlanResult]:
    """Make the missing shards of the plans with Ray."""
    if config.pool.address is None:
        check_addresses()
    from stages.cluster.run import run_plan
    from stages.fully_automatic.worker import ShardWorker

    pool = config.pool if config.pool.worker_memory_bytes else _expect_memory(config)
    results = []
    make_worker = partial(ShardWorker, config.model, config.generate, dataset.uri)
    for plan in plans:
        with dataset.turn(plan, on_wait=partial(log, f"masks: another command makes {plan.plan_id}; waiting for it")):
            results.append(run_plan(dataset, plan, make_worker, pool, watch))
    return results


def _expect_memory(config: RunConfig) -> PoolConfig:
    """Load the model, and tell the pool how much memory it needs, unless the settings say so; it is freed on return."""
    if config.pool.address is None:
        check_addresses()
    from engine.model.weights import load_model
    from stages.fully_automatic.worker import expected_memory_bytes

    model = load_model(config.model)
    if config.pool.worker_memory_bytes:
        return config.pool
    return replace(config.pool, worker_memory_bytes=expected_memory_bytes(model))


class _Watch:
    """Watcher of a plan for the driver: it shows progress, logs each problem once and folds every minute."""

    def __init__(self, dataset: Dataset, show: Reporter) -> None:
        self._dataset, self._show = dataset, show
        self._deaths = self._waiting_workers = 0
        self._folded = time.monotonic()

    def __call__(self, now: PlanProgress) -> None:
        if now.deaths > self._deaths:
            log(f"masks: a worker died ({now.deaths} so far); other workers get its shards")
        self._deaths = now.deaths
        if now.waiting_workers > self._waiting_workers:
            log(f"masks: {now.workers} workers at work, {now.waiting_workers} starting or waiting for room")
        self._waiting_workers = max(self._waiting_workers, now.waiting_workers)
        self._show(_mask_counts(now))
        if time.monotonic() - self._folded > FOLD_EVERY_S:
            try:
                self._dataset.fold()
            except StoreError as error:  # workers go on; the fold at the end takes these records, too, or raises
                log(f"masks: new shards are not in the tables yet, next try in {FOLD_EVERY_S:.0f} s ({error})")
            self._folded = time.monotonic()


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


def _check_ingested(ingested: IngestReport) -> None:
    """Check that every image shard was made.

    Raises:
        ShardsMissing: Some image shards failed.
    """
    if ingested.failed:
        shard, why = next(iter(ingested.failed.items()))
        raise ShardsMissing(
            f"{len(ingested.failed)} image shards failed ({shard}: {why}); the others are committed; the log above has "
            "the traceback; run the same command again to retry"
        )


def _result(config: RunConfig, results: list[PlanResult], ingest_rejects: int, started: float, page: str) -> RunResult:
    """Add up the plans' results.

    Raises:
        ShardsMissing: Some shards of a plan are missing.
    """
    # Incomplete plans
    failed = {shard: why for result in results for shard, why in result.failed.items()}
    if failed:
        shard, why = next(iter(failed.items()))
        raise ShardsMissing(
            f"{len(failed)} mask shards failed ({shard}: {why}); the others are committed and in {page}; "
            "run the same command again to retry"
        )

    # Totals; a redo has the commits of its plan
    masks_s = sum(result.seconds for result in results if result.new_images)
    commits = {commit.address: commit for result in results for commit in result.commits}.values()
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
