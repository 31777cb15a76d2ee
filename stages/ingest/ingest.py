"""Photographs in, image shards out; what cannot be used becomes a reject with its reason.

A plan names a photograph by its name in the folder given, where it lies, its size and its time of change: a look at the
folder, with no file read, tells what is new. The same command again therefore finds its plan, does what is missing of
it, and plans only the photographs that no plan of the same settings holds. What a photograph is, its bytes say: the
same bytes under another name are a duplicate; under the name they had before (a copy with a new time, a folder that
moved) they count as unchanged. Other settings store nothing anew: what stays as earlier ones made it is counted.
"""

import hashlib
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path

from PIL import Image

from stages.ingest.config import STAGE, IngestConfig
from stages.ingest.files import PhotosAtHand, find_photos, read_file
from stages.ingest.known import Known
from stages.ingest.normalise import Photo, Unusable, normalise
from stages.ingest.plan import plan_photos
from storage.dataset import Dataset
from storage.protocol.commits import Commit
from storage.protocol.inputs import PhotoKey, photo_inputs
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, Reject, image_id_of, image_key

MAX_THREADS = 8  # each may hold one decoded photograph


@dataclass(frozen=True, kw_only=True)
class IngestProgress:
    """Photographs of this call; those of shards made earlier are not in `total`."""

    done: int
    total: int
    images: int
    rejects: int


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What became of the photographs given, now or in earlier calls; only the last two fields are of this call."""

    images: int
    unchanged: int  # known before under the same name: neither stored again nor rejected
    of_earlier_settings: int  # of the unchanged: size, license, country are still those of other settings
    rejects: tuple[Reject, ...]
    other_files: int  # in the folders given: no pictures, or hidden
    shards: tuple[Commit, ...]
    nbytes: int  # stored
    new_shards: int  # made by this call
    seconds: float

    def reasons(self) -> dict[str, int]:
        """Number of rejects by reason, the most frequent first."""
        return dict(Counter(reject.reason for reject in self.rejects).most_common())


def ingest_photos(
    paths: Sequence[str | Path],
    dataset: Dataset,
    config: IngestConfig | None = None,
    progress: Callable[[IngestProgress], None] | None = None,
) -> IngestReport:
    """Takes the photographs under `paths` (folders and files) into the dataset; again, to go on where it ended.

    Raises ValueError for a path that is not there and for paths without a photograph, StoreError from the store.
    """
    began = time.perf_counter()
    config = config or IngestConfig()
    found, other_files = find_photos(paths)
    plans = plan_photos(dataset, found, config)
    at_hand = PhotosAtHand(found)
    todo = [
        (plan, shard)
        for plan in plans
        for shard in dataset.missing(plan)
        if not at_hand.keys.isdisjoint(photo_inputs(shard.inputs))
    ]
    _ingest_shards(dataset, todo, at_hand, config, progress or (lambda _: None))
    by_address = {commit.address: commit for plan in plans for commit in _commits_with(dataset, plan, at_hand.keys)}
    commits = list(by_address.values())  # a plan and its redo have shards in common
    return IngestReport(
        images=sum(commit.images for commit in commits),
        unchanged=sum(_count(commit.stats, "unchanged") for commit in commits),
        of_earlier_settings=sum(_count(commit.stats, "of_earlier_settings") for commit in commits),
        rejects=tuple(reject for commit in commits for reject in commit.rejects),
        other_files=other_files,
        shards=tuple(commits),
        nbytes=sum(commit.nbytes for commit in commits),
        new_shards=len(todo),
        seconds=time.perf_counter() - began,
    )


def _commits_with(dataset: Dataset, plan: Plan, keys: set[PhotoKey]) -> list[Commit]:
    here = {shard.name for shard in plan.shards if not keys.isdisjoint(photo_inputs(shard.inputs))}
    return [commit for commit in dataset.commits(plan) if commit.shard in here]


def _ingest_shards(
    dataset: Dataset,
    todo: Sequence[tuple[Plan, PlannedShard]],
    at_hand: PhotosAtHand,
    config: IngestConfig,
    progress: Callable[[IngestProgress], None],
) -> None:
    if not todo:
        return
    known = Known(dataset)
    tally = _Tally(total=sum(len(shard.inputs) for _, shard in todo), progress=progress)
    pool = ThreadPoolExecutor(config.threads or min(MAX_THREADS, cpu_count() or 1), thread_name_prefix="ingest")
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of pictures half as large as its guard: both are taken.
            warnings.filterwarnings("ignore", module=r"PIL\..*")
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
            for plan, shard in todo:
                _ingest_shard(dataset, plan, shard, at_hand, known, config, pool, tally)
    finally:
        pool.shutdown(cancel_futures=True)


def _ingest_shard(
    dataset: Dataset,
    plan: Plan,
    shard: PlannedShard,
    at_hand: PhotosAtHand,
    known: Known,
    config: IngestConfig,
    pool: ThreadPoolExecutor,
    tally: "_Tally",
) -> Commit:
    """Reads and decodes in threads, decides in the plan's order: the first of two equal files is the one kept."""
    began = time.perf_counter()
    inherited = dataset.previous(plan, shard) if plan.redoes else None
    images: list[tuple[ImageRecord, bytes]] = []
    rejects: list[Reject] = []
    unchanged = -inherited.images if inherited else 0  # they come by again
    of_earlier_settings = _count(inherited.stats, "of_earlier_settings") if inherited else 0
    known.begin(plan)
    keys = photo_inputs(shard.inputs)
    read = pool.map(lambda key: _read_photo(key, at_hand, known, config), keys)
    for key, photo in zip(keys, read, strict=True):
        verdict = photo.outcome if isinstance(photo.outcome, Unusable) else known.take(key, photo.sha256)
        if isinstance(verdict, Unusable):
            rejects.append(_reject(photo, verdict))
        elif isinstance(photo.outcome, Photo) and verdict == "new":
            images.append(_image(photo, photo.outcome, config))
        else:
            unchanged += 1
            of_earlier_settings += known.only_of_other_settings(key)
        tally.count(images=verdict == "new", rejects=isinstance(verdict, Unusable))
    as_they_came = sum(record.source_sha256 == record.stored_sha256 for record, _ in images)
    stats = {
        "photos": len(shard.inputs),
        "unchanged": unchanged,
        "of_earlier_settings": of_earlier_settings,
        "stored_as_they_came": as_they_came,
    }
    seconds = time.perf_counter() - began
    return dataset.write_images(plan, shard, images, rejects, stats=stats, seconds=seconds, inherited=inherited)


@dataclass(frozen=True, kw_only=True)
class _ReadPhoto:
    """One photograph as a thread leaves it; `outcome` is None where the dataset has these bytes already."""

    source: str
    sha256: str  # "" where the bytes could not be read
    outcome: Photo | Unusable | None


def _read_photo(key: PhotoKey, at_hand: PhotosAtHand, known: Known, config: IngestConfig) -> _ReadPhoto:
    source, sha256 = key.source, ""
    try:
        path = at_hand.path(key)
        if path is None:
            raise Unusable("unreadable", "it was there when the plan was made and is no longer")
        data = read_file(path, config.shard_bytes)
        sha256 = hashlib.sha256(data).hexdigest()
        if known.holds(sha256):
            return _ReadPhoto(source=source, sha256=sha256, outcome=None)
        photo = normalise(
            data,
            shortest_side_px=config.shortest_side_px,
            min_side_px=config.min_side_px,
            max_pixels=config.max_pixels,
        )
        return _ReadPhoto(source=source, sha256=sha256, outcome=photo)
    except Unusable as reason:
        return _ReadPhoto(source=source, sha256=sha256, outcome=reason)


class _Tally:
    """Counts photographs and reports each."""

    def __init__(self, *, total: int, progress: Callable[[IngestProgress], None]) -> None:
        self._progress = progress
        self._so_far = IngestProgress(done=0, total=total, images=0, rejects=0)

    def count(self, *, images: bool, rejects: bool) -> None:
        before = self._so_far
        self._so_far = IngestProgress(
            done=before.done + 1,
            total=before.total,
            images=before.images + images,
            rejects=before.rejects + rejects,
        )
        self._progress(self._so_far)


def _image(read: _ReadPhoto, photo: Photo, config: IngestConfig) -> tuple[ImageRecord, bytes]:
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
    return Reject(source=read.source, source_sha256=read.sha256, reason=why.reason, detail=why.detail, stage=STAGE)


def _count(stats: Mapping[str, object], name: str) -> int:
    value = stats.get(name, 0)
    assert isinstance(value, int)
    return value
