"""Ingest: photos become image shards; a photo that cannot be used becomes a reject with a reason.

A plan names a photo by its name in the folder given, its place on disk, its size and its time of change. So a look at
the folder tells which photos are new, without reading a file. A second call of the same command finds its plan, makes
the missing shards, and plans only photos that no plan of the same settings names.

The bytes of a photo decide whether it is new. The same bytes under another name are a duplicate. The same bytes under
the same name (a copy with a new time, a folder that moved) are unchanged. Other settings never store an image again;
the report counts the images that earlier settings made.
"""

import hashlib
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path

from PIL import Image

from stages.ingest.config import IngestConfig
from stages.ingest.files import PhotosAtHand, find_photos, read_file
from stages.ingest.known import KnownPhotos, Verdict
from stages.ingest.normalise import Photo, Unusable, normalise
from stages.ingest.plan import plan_photos
from stages.ingest.stats import IngestStats
from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.inputs import PhotoKey, photo_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, Reject, Stage, image_id_of, image_key

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
) -> IngestReport:
    """Ingest the photos under `paths` (folders and files); a second call continues where the first call stopped.

    Raises:
        ValueError: A path does not exist, or there is no photo under the paths.
        StoreError: The dataset cannot be read or written.
    """
    began = time.perf_counter()
    config = config or IngestConfig()

    # Find the photos and plan those that no plan names yet
    found, other_files = find_photos(paths)
    at_hand = PhotosAtHand(found, paths)
    plans = plan_photos(dataset, found, config, at_hand)

    # Ingest the missing shards that hold any of them; one with photos that were not looked for stays missing
    todo = [
        (plan, shard)
        for plan in plans
        for shard in dataset.missing(plan)
        if not at_hand.keys.isdisjoint(keys := photo_inputs(shard.inputs)) and at_hand.covers(keys)
    ]
    if todo:
        with _session(dataset, config, at_hand, _count_photos(todo), progress) as session:
            for plan, shard in todo:
                _ingest_shard(session, plan, shard)

    # Report what all their records say
    by_address = {commit.address: commit for plan in plans for commit in _commits_with(dataset, plan, at_hand.keys)}
    commits = tuple(by_address.values())  # a plan and its redo have shards in common
    seconds = time.perf_counter() - began
    return _report(commits, other_files=other_files, new_shards=len(todo), seconds=seconds)


def _report(commits: tuple[Commit, ...], *, other_files: int, new_shards: int, seconds: float) -> IngestReport:
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
        seconds=seconds,
    )


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
            self._report(self._so_far)


@dataclass(frozen=True, kw_only=True)
class _Session:
    """Objects that all shards of one call share."""

    dataset: Dataset
    config: IngestConfig
    at_hand: PhotosAtHand
    known: KnownPhotos
    threads: ThreadPoolExecutor
    progress: _ProgressCounter


@contextmanager
def _session(
    dataset: Dataset,
    config: IngestConfig,
    at_hand: PhotosAtHand,
    total: int,
    progress: Callable[[IngestProgress], None] | None,
) -> Iterator[_Session]:
    """Start the threads that read photos; on leaving, cancel the photos not yet begun and end the threads."""
    threads = ThreadPoolExecutor(config.threads or min(MAX_THREADS, cpu_count() or 1), thread_name_prefix="ingest")
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of photos over half its own pixel limit: both are ingested.
            warnings.filterwarnings("ignore", module=r"PIL\..*")
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
            yield _Session(
                dataset=dataset,
                config=config,
                at_hand=at_hand,
                known=KnownPhotos(dataset),
                threads=threads,
                progress=_ProgressCounter(total, progress),
            )
    finally:
        threads.shutdown(cancel_futures=True)


def _ingest_shard(session: _Session, plan: Plan, shard: PlannedShard) -> Commit:
    """Read and decode photos in threads, judge them in the plan's order, and commit the shard.

    The first of two photos with equal bytes is kept.
    """
    began = time.perf_counter()
    inherited = session.dataset.previous(plan, shard) if plan.redoes else None
    if inherited and not session.dataset.is_there(inherited):
        session.known.forget(inherited)  # its images are lost: all its photos are new again
        inherited = None
    images: list[tuple[ImageRecord, bytes]] = []
    rejects: list[Reject] = []
    unchanged = -inherited.images if inherited else 0  # a redo reads the inherited images' photos again
    before = IngestStats.from_json(inherited.stats) if inherited else IngestStats()
    other_settings = before.of_earlier_settings

    # Decide what each photo is
    session.known.start_plan(plan)
    keys = photo_inputs(shard.inputs)
    for key, read in zip(keys, session.threads.map(lambda key: _read_photo(session, key), keys), strict=True):
        try:
            verdict = _judge(session.known, key, read)
        except Unusable as reason:
            rejects.append(_reject(read, reason))
            session.progress.count(rejects=1)
            continue
        if verdict is Verdict.NEW:
            images.append(_image(read, session.config))
        else:
            unchanged += 1
            other_settings += session.known.has_only_other_settings(key)
        session.progress.count(images=int(verdict is Verdict.NEW))

    # Leave out what another ingest committed meanwhile
    taken = session.known.refresh()
    unchanged += sum(image.image_id in taken for image, _ in images)
    images = [(image, data) for image, data in images if image.image_id not in taken]

    # Commit images, rejects and statistics
    stats = IngestStats(
        photos=len(shard.inputs),
        unchanged=unchanged,
        of_earlier_settings=other_settings,
        stored_as_they_came=sum(record.source_sha256 == record.stored_sha256 for record, _ in images),
        others=before.others,
    )
    seconds = time.perf_counter() - began
    return session.dataset.write_images(
        plan, shard, images, rejects, stats=stats.to_json(), seconds=seconds, inherited=inherited
    )


@dataclass(frozen=True, kw_only=True)
class _ReadPhoto:
    """Result of a thread for one photo."""

    source: str
    sha256: str
    """SHA-256 of the file; "" for a file that could not be read."""
    outcome: Photo | Unusable | None
    """Normalised photo, or the reason why there is none; None where the dataset holds these bytes already."""


def _read_photo(session: _Session, key: PhotoKey) -> _ReadPhoto:
    """Read a file and normalise the photo, unless the dataset holds its bytes."""
    sha256 = ""
    outcome: Photo | Unusable | None = None
    config = session.config
    try:
        path = session.at_hand.path(key)
        if path is None:
            raise Unusable("unreadable", "it was there when the plan was made and is no longer")
        data = read_file(path, config.shard_bytes)
        sha256 = hashlib.sha256(data).hexdigest()
        if not session.known.holds(sha256):
            outcome = normalise(
                data,
                shortest_side_px=config.shortest_side_px,
                min_side_px=config.min_side_px,
                max_pixels=config.max_pixels,
            )
    except Unusable as reason:
        outcome = reason
    return _ReadPhoto(source=key.source, sha256=sha256, outcome=outcome)


def _judge(known: KnownPhotos, key: PhotoKey, read: _ReadPhoto) -> Verdict:
    """Tell a new photo from an unchanged one.

    Raises:
        Unusable: The file is no usable photo or is a duplicate; the photo becomes a reject.
    """
    if isinstance(read.outcome, Unusable):
        raise read.outcome
    return known.take(key, read.sha256)


def _image(read: _ReadPhoto, config: IngestConfig) -> tuple[ImageRecord, bytes]:
    """Make the record and the stored bytes of the image that a new photo becomes."""
    photo = read.outcome
    assert isinstance(photo, Photo), "a photo that the dataset does not hold was normalised"
    image_id = image_id_of(read.sha256)
    record = ImageRecord(
        image_id=image_id,
        key=image_key(image_id),
        height=photo.height,
        width=photo.width,
        format=photo.format,
        nbytes=len(photo.data),
        source=read.source,
        source_sha256=read.sha256,
        stored_sha256=hashlib.sha256(photo.data).hexdigest(),
        license=config.license,
        country=config.country,
    )
    return record, photo.data


def _reject(read: _ReadPhoto, why: Unusable) -> Reject:
    return Reject(
        source=read.source, source_sha256=read.sha256, reason=why.reason, detail=why.detail, stage=Stage.INGEST
    )
