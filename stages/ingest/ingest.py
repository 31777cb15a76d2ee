"""Ingest: photos become image shards; a photo that cannot be used becomes a reject with a reason.

A plan names a photo by its name in the folder given, its place on disk, its size and its time of change. So a look at
the folder tells which photos are new, without reading a file. A second call of the same command finds its plan, makes
the missing shards, and plans only photos that no plan of the same settings names.

The bytes of a photo decide whether it is new. The same bytes under another name are a duplicate. The same bytes under
the same name (a copy with a new time, a folder that moved) are unchanged. Other settings never store an image again;
the report counts the images that earlier settings made.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import cpu_count
from pathlib import Path

from stages.ingest.config import IngestConfig
from stages.ingest.decoders import Decoders
from stages.ingest.files import PhotosAtHand, find_photos
from stages.ingest.known import KnownPhotos, Verdict
from stages.ingest.normalise import Unusable
from stages.ingest.one_photo import image_of, judge, read_planned, regions_of, reject_of
from stages.ingest.plan import plan_photos
from stages.ingest.privacy import Concealer, Region
from stages.ingest.privacy_detectors import open_concealer
from stages.ingest.stats import IngestStats, privacy_stats
from storage.dataset import Dataset
from storage.errors import StoreError
from storage.protocol.commits import Commit, new_attempt_id
from storage.protocol.inputs import PhotoKey, photo_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, Reject, image_id_of

logger = logging.getLogger(__name__)

MAX_THREADS = 8
"""Maximum number of threads where the number is not given; each thread may hold one decoded photo."""


@dataclass(frozen=True, kw_only=True)
class IngestProgress:
    """Progress of one ingest call in photos; `total` leaves out photos of shards committed earlier."""

    done: int
    total: int
    images: int
    rejects: int


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """Counts of what became of the given photos, in this call and in earlier calls."""

    images: int
    unchanged: int
    """Number of photos known before under the same name, which are neither stored again nor rejected."""
    stored_with_other_settings: int
    """Number of unchanged photos whose stored size, licence and country come from other settings."""
    rejects: tuple[Reject, ...]
    other_files: int
    """Number of files in the given folders that are hidden or no photos."""
    shards: tuple[Commit, ...]
    nbytes: int
    """Size of the shards' files in bytes."""
    new_shards: int
    """Number of shards committed by this call."""
    failed: Mapping[str, str]
    """Error of each shard that this call could not make, by `<plan>/<shard>`; another call tries these shards again."""
    seconds: float
    """Duration of this call in seconds."""

    def reasons(self) -> dict[str, int]:
        """Count the rejects by reason, the most frequent first."""
        return dict(Counter(reject.reason for reject in self.rejects).most_common())


def ingest_photos(
    paths: Sequence[str | Path],
    dataset: Dataset,
    config: IngestConfig | None = None,
    progress: Callable[[IngestProgress], None] | None = None,
    *,
    max_new: int | None = None,
) -> IngestReport:
    """Ingest the photos under `paths` (folders and files); a second call continues where the first call stopped.

    Args:
        paths: Folders and files.
        dataset: Dataset that gets the images.
        config: Settings; None for the default ones.
        progress: Function that is called after each photo; what it raises stops the ingest.
        max_new: Maximum number of photos that no plan names yet; a further call ingests the next ones. None for all.

    Raises:
        ValueError: A path does not exist, there is no photo under the paths, a detector's file is missing, or so many
            planned photos are gone that their disk is probably not mounted.
        StoreError: The dataset cannot be read or written.
    """
    began = time.perf_counter()
    config = config or IngestConfig()

    # Find the photos and plan those that no plan names yet
    concealer = open_concealer(config.privacy)
    found, other_files = find_photos(paths)
    at_hand = PhotosAtHand(found, paths)
    privacy = concealer.settings() if concealer else None
    plans = plan_photos(dataset, found, config, at_hand, privacy=privacy, max_new=max_new)

    # Ingest the missing shards that hold any of them; one with photos that were not looked for stays missing
    todo = [
        (plan, shard)
        for plan in plans
        for shard in dataset.missing(plan)
        if not at_hand.keys.isdisjoint(keys := photo_inputs(shard.inputs)) and at_hand.covers(keys)
    ]
    failed: dict[str, str] = {}
    new_shards = 0
    _check_disks(todo, at_hand, config)
    if todo:
        with _session(dataset, config, concealer, at_hand, _count_photos(todo), progress) as session:
            for plan, shard in todo:
                try:
                    new_shards += _ingest_shard(session, plan, shard)
                except StoreError:
                    raise
                except Exception as error:  # a fault of this program, or the caller's wish to stop
                    if error is session.progress.error:
                        raise
                    name = f"{plan.plan_id}/{shard.name}"
                    logger.exception("ingest: shard %s failed", name)
                    failed[name] = f"{type(error).__name__}: {error}"
                    session.known.give_back()

    # Report what all their records say
    by_address = {commit.address: commit for plan in plans for commit in _commits_with(dataset, plan, at_hand.keys)}
    commits = tuple(by_address.values())  # a plan and its redo have shards in common
    seconds = time.perf_counter() - began
    return _report(commits, other_files=other_files, new_shards=new_shards, failed=failed, seconds=seconds)


def _report(
    commits: tuple[Commit, ...], *, other_files: int, new_shards: int, failed: Mapping[str, str], seconds: float
) -> IngestReport:
    """Sum up the commit records of shards as a report."""
    stats = [IngestStats.from_json(commit.stats) for commit in commits]
    return IngestReport(
        images=sum(commit.images for commit in commits),
        unchanged=sum(each.unchanged for each in stats),
        stored_with_other_settings=sum(each.of_earlier_settings for each in stats),
        rejects=tuple(reject for commit in commits for reject in commit.rejects),
        other_files=other_files,
        shards=commits,
        nbytes=sum(commit.nbytes for commit in commits),
        new_shards=new_shards,
        failed=failed,
        seconds=seconds,
    )


def _check_disks(todo: Sequence[tuple[Plan, PlannedShard]], at_hand: PhotosAtHand, config: IngestConfig) -> None:
    """Check, before anything is committed, that photos are not gone because their disk is not mounted.

    Raises:
        ValueError: A given folder is empty though photos below it were planned, or more of a shard's photos are gone
            than `max_gone_fraction` allows.
    """
    advice = "is its disk mounted? Run the same command again when it is; ingest.max_gone_fraction=1 rejects them"
    if config.max_gone_fraction >= 1:
        return
    for plan, shard in todo:
        keys = photo_inputs(shard.inputs)
        gone = [key for key in keys if at_hand.path(key) is None]
        folder = at_hand.empty_folder(gone)
        if folder is not None:
            raise ValueError(f"photos: {folder} is empty, but plan {plan.plan_id} has photos of it to ingest; {advice}")
        if len(gone) > config.max_gone_fraction * len(keys):
            what = f"{len(gone)} of {len(keys)} photos of shard {plan.plan_id}/{shard.name} are gone"
            raise ValueError(f"photos: {what}, the first is {gone[0].source}; {advice}")


def _count_photos(todo: Sequence[tuple[Plan, PlannedShard]]) -> int:
    return sum(len(shard.inputs) for _, shard in todo)


def _commits_with(dataset: Dataset, plan: Plan, keys: set[PhotoKey]) -> list[Commit]:
    """Read the commit records of the plan's shards that hold any of these photos."""
    here = {shard.name for shard in plan.shards if not keys.isdisjoint(photo_inputs(shard.inputs))}
    return [commit for commit in dataset.commits(plan) if commit.shard in here]


class _ProgressCounter:
    """Counter of photos that reports its progress after each photo."""

    def __init__(self, total: int, report: Callable[[IngestProgress], None] | None) -> None:
        self._report = report
        self.error: Exception | None = None
        """Error that the caller's function raised."""
        self._so_far = IngestProgress(done=0, total=total, images=0, rejects=0)

    def count(self, *, images: int = 0, rejects: int = 0) -> None:
        before = self._so_far
        self._so_far = IngestProgress(
            done=before.done + 1,
            total=before.total,
            images=before.images + images,
            rejects=before.rejects + rejects,
        )
        if self._report:
            try:
                self._report(self._so_far)
            except Exception as error:
                self.error = error
                raise


@dataclass(frozen=True, kw_only=True)
class _Session:
    """Objects that all shards of one call share."""

    dataset: Dataset
    config: IngestConfig
    concealer: Concealer | None
    at_hand: PhotosAtHand
    known: KnownPhotos
    decoders: Decoders
    threads: ThreadPoolExecutor
    progress: _ProgressCounter


@contextmanager
def _session(
    dataset: Dataset,
    config: IngestConfig,
    concealer: Concealer | None,
    at_hand: PhotosAtHand,
    total: int,
    progress: Callable[[IngestProgress], None] | None,
) -> Iterator[_Session]:
    """Start the threads that have photos decoded; on leaving, cancel the photos not yet begun and end the decoders."""
    threads = ThreadPoolExecutor(config.threads or min(MAX_THREADS, cpu_count() or 1), thread_name_prefix="ingest")
    decoders = Decoders(config, concealer)
    try:
        yield _Session(
            dataset=dataset,
            config=config,
            concealer=concealer,
            at_hand=at_hand,
            known=KnownPhotos(dataset),
            decoders=decoders,
            threads=threads,
            progress=_ProgressCounter(total, progress),
        )
    finally:
        threads.shutdown(cancel_futures=True)
        decoders.close()


def _ingest_shard(session: _Session, plan: Plan, shard: PlannedShard) -> bool:
    """Read and decode photos in threads, judge them in the plan's order, and commit the shard.

    The first of two photos with equal bytes is kept.

    Returns:
        Whether this call made the shard, and not another process at the same time.
    """
    began = time.perf_counter()
    inherited = session.dataset.previous(plan, shard) if plan.redoes else None
    if inherited and not session.dataset.is_there(inherited):
        session.known.forget(inherited)  # its images are lost: all its photos are new again
        inherited = None
    images: list[tuple[ImageRecord, bytes]] = []
    regions: dict[int, Sequence[Region]] = {}
    rejects: list[Reject] = []
    unchanged = (
        -session.known.count_held(inherited) if inherited else 0
    )  # a redo reads the inherited images' photos again
    before = IngestStats.from_json(inherited.stats) if inherited else IngestStats()
    other_settings = before.of_earlier_settings

    # Decide what each photo is
    session.known.start_shard(plan)
    keys = photo_inputs(shard.inputs)
    read = partial(read_planned, session.at_hand, session.known, session.decoders)
    for key, photo in zip(keys, session.threads.map(read, keys), strict=True):
        try:
            verdict = judge(session.known, key, photo)
        except Unusable as reason:
            rejects.append(reject_of(photo, reason))
            session.progress.count(rejects=1)
            continue
        if verdict is Verdict.NEW:
            images.append(image_of(photo, session.config))
            regions[image_id_of(photo.sha256)] = regions_of(photo)
        else:
            unchanged += 1
            other_settings += session.known.has_only_other_settings(key)
        session.progress.count(images=int(verdict is Verdict.NEW))

    # Leave out what another ingest committed meanwhile
    taken = session.known.refresh()
    unchanged += sum(image.image_id in taken for image, _ in images)
    images = [(image, data) for image, data in images if image.image_id not in taken]

    # Commit images, rejects and statistics
    searched = {image.image_id: regions[image.image_id] for image, _ in images}
    stats = IngestStats(
        photos=len(shard.inputs),
        unchanged=unchanged,
        of_earlier_settings=other_settings,
        stored_as_they_came=sum(record.source_sha256 == record.stored_sha256 for record, _ in images),
        others=before.others,
        **privacy_stats(before, session.concealer, searched),
    )
    attempt_id = new_attempt_id(shard)
    commit = session.dataset.write_images(
        plan,
        shard,
        images,
        rejects,
        stats=stats.to_json(),
        seconds=time.perf_counter() - began,
        inherited=inherited,
        attempt_id=attempt_id,
    )
    return commit.attempt_id == attempt_id
