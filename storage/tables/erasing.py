"""Erasing images: find the objects that hold them, record the erasure, then overwrite the images with zeros.

The record comes first, so whoever dies in between leaves work that anybody completes: the same call again, `finish`, or
the next fold, which overwrites the objects of an erasure before it takes the erasure into the tables.

An object may be written while an erasure is recorded, or long afterwards by a worker that stood still. So data/ is
listed once more after the record, and the fold looks at each shard that it takes. Such objects are named by a further
generation of the erasure, and only then overwritten.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from storage.errors import Corrupt, NotFound, StoreError
from storage.formats.tar_shards import find_files
from storage.objects.stores import ObjectStore
from storage.progress import OnPhase, silent
from storage.protocol.commits import (
    Commit,
    ErasedObject,
    Part,
    begin_attempt,
    list_commits,
    read_commit,
    read_commits,
)
from storage.protocol.erasures import Erasures, Ranges, erasures_of, merged, read_erasures, zeroed_sha256s
from storage.protocol.inputs import ImageKey, PlanKind, ShardAddress, image_inputs, image_shard
from storage.protocol.plans import PlannedShard, make_plan, put_plan, read_plan
from storage.records import ERASED, Reject, Stage, image_key
from storage.tables import contents

logger = logging.getLogger(__name__)

_READS_AT_ONCE = 16
"""Objects read at a time; over a network each answer takes some milliseconds."""
_TRIES = 20
"""Most attempts to name objects while other processes erase."""
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True)
class FoundImages:
    """Files of some images in the tars of a dataset."""

    source_sha256s: Mapping[int, str] = field(default_factory=dict)
    """SHA-256 of the photo's file by image_id, in hex; empty where no table row of the image can be read."""
    objects: Mapping[str, Ranges] = field(default_factory=dict)
    """Ranges of the images' files by the key of the tar."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """Those of these tars that a record names, by key."""
    unreadable: tuple[str, ...] = ()
    """Keys of damaged tars, which may hold more of the images than `objects` states."""
    tars: frozenset[str] = frozenset()
    """Keys of all tars that were there."""

    @property
    def nbytes(self) -> int:
        """Number of bytes of the images' files."""
        return sum(nbytes for ranges in self.objects.values() for _, nbytes in ranges)


def find_images(
    store: ObjectStore, image_ids: Collection[int], *, but: Collection[str] = (), on_progress: OnPhase = silent
) -> FoundImages:
    """Find the files of images in all generations of all shards, and in tars that no record names.

    Args:
        store: The store of the dataset.
        image_ids: Ids of the images.
        but: Keys of tars to pass over.
        on_progress: Function that is called now and then with how much is done.
    """
    # Tars, then records: in the other order, the tar of a record made in between would be passed over
    tars = frozenset(key for key in store.list("data/") if key.endswith(".tar")).difference(but)
    records = read_commits(store, [name for name in list_commits(store) if name.kind != PlanKind.ERASURES])
    parts = {part.key: part for record in records for part in record.tars()}
    suspects = set(tars.difference(parts))

    # Image shards that hold the images, and the shards that were made from them
    shards = [record for record in records if record.kind is PlanKind.IMAGES]
    sha256s: dict[int, str] = {}
    lineages: set[str] = set()
    for record, rows in zip(
        shards, _each(partial(_source_sha256s, store), shards, on_progress, "image shards read"), strict=True
    ):
        sha256s |= {image_id: rows[image_id] for image_id in image_ids if rows and image_id in rows}
        if rows is None or not rows.keys().isdisjoint(image_ids):
            lineages.add(record.address.lineage)
            suspects |= {part.key for part in record.tars()}
    for record in records:
        made_from = {image_shard(images).lineage for images in image_inputs(record.inputs)}
        if record.kind is not PlanKind.IMAGES and (not made_from or made_from & lineages):
            suspects |= {part.key for part in record.tars()}

    # The images' files in the tars of these shards
    found = _find_files(store, suspects & tars, image_ids, on_progress)
    return FoundImages(
        source_sha256s={**dict.fromkeys(found.source_sha256s, ""), **sha256s},
        objects=found.objects,
        parts={key: parts[key] for key in found.objects if key in parts},
        unreadable=found.unreadable,
        tars=tars,
    )


def erase(store: ObjectStore, image_ids: Iterable[int], reason: str, *, on_progress: OnPhase = silent) -> Commit:
    """Record that images are erased, and overwrite them with zeros. The next fold removes their rows from the tables.

    Args:
        store: The store of the dataset.
        image_ids: Ids of the images.
        reason: Reason, which is stored in the record.
        on_progress: Function that is called now and then with how much is done.

    Raises:
        ValueError: The dataset does not hold an image, or the same erasure was closed without a result.
    """
    # The plan of the erasure, whose id follows from its images and reason
    wanted = sorted(set(image_ids))
    if not wanted or not all(0 <= each < 2**63 for each in wanted):
        raise ValueError(f"erasure: {'an image has one 63-bit id' if wanted else 'no image was named'}")
    shard = PlannedShard.from_inputs(*(ImageKey(image_id=image_id) for image_id in wanted))
    plan = make_plan(PlanKind.ERASURES, [shard], {"reason": reason})

    # The record, unless the same images were erased for the same reason before
    known, named_tars = read_erasures(store), frozenset[str]()
    if _newest(store, plan.address(shard)) is None:
        found = find_images(store, wanted, on_progress=on_progress)
        check_held(found, known, wanted)
        named, damaged = _hash(store, known, found.objects, found.parts)
        rejects = [_reject(image_id, found, known, reason) for image_id in wanted]
        attempt = begin_attempt(store, put_plan(store, plan), shard)
        winner = attempt.commit(rejects=rejects, erased=named, stats={"unreadable": list(found.unreadable)})
        if winner.attempt_id == attempt.attempt_id:  # else the record names what another process has found
            named_tars = found.tars.difference(damaged, found.unreadable)
    commit = _newest(store, plan.address(shard))
    if commit is None or not commit.attempt_id:
        raise ValueError(f"erasure: {plan.address(shard)} was given up (`gc --close`); give another reason")

    # The objects: those of the record, and those that were written meanwhile
    finish(store, but=named_tars, on_progress=on_progress)
    return _newest(store, plan.address(shard)) or commit


def check_held(found: FoundImages, erasures: Erasures, image_ids: Sequence[int]) -> None:
    """Check that each image is in the dataset, or was until it was erased.

    Raises:
        ValueError: An image is not.
    """
    unknown = [each for each in image_ids if each not in found.source_sha256s and each not in erasures.images]
    if unknown:
        what = f"{len(unknown)} of {len(image_ids)} images are not in this dataset"
        raise ValueError(f"erasure: {what}, the first is {image_key(unknown[0])}; nothing was erased")


def finish(store: ObjectStore, *, but: Collection[str] = (), on_progress: OnPhase = silent) -> Erasures:
    """Overwrite with zeros every file of an erased image that is still there, and return the erasures.

    Args:
        store: The store of the dataset.
        but: Keys of tars that need no search, because an erasure names them where they hold its images.
        on_progress: Function that is called now and then with how much is done.
    """
    erasures = read_erasures(store)
    if not erasures.images:
        return erasures
    found = find_images(store, erasures.images, but=but, on_progress=on_progress)
    damaged = _name(store, found.objects, found.parts)
    erasures = read_erasures(store)
    _overwrite_ranges(store, {**erasures.ranges, **damaged}, on_progress)
    for key in found.unreadable:
        logger.warning("erase: %s/%s is damaged; it may still hold an erased image", store.uri, key)
    _remove_unfinished(store, erasures)
    return erasures


def overwrite(store: ObjectStore, commits: Iterable[Commit]) -> None:
    """Overwrite with zeros what records of erasures name. An object that is gone is passed over."""
    _overwrite_ranges(store, erasures_of(commits).ranges)


def name_late(store: ObjectStore, commits: Sequence[Commit]) -> bool:
    """Erase images from shards that were committed after the erasure, or after its objects were found.

    Args:
        store: The store of the dataset.
        commits: Records that a fold is about to take, with readable rows. They were listed before this call.

    Returns:
        Whether a generation of an erasure was added, which the fold has to take first.
    """
    erasures = read_erasures(store)
    late = [
        commit for commit in commits if erasures.images and not _image_ids(store, commit).isdisjoint(erasures.images)
    ]
    parts = {part.key: part for commit in late for part in commit.tars()}
    if not parts:
        return False
    found = _find_files(store, parts, erasures.images)
    damaged = _name(store, found.objects, parts)
    _overwrite_ranges(store, damaged)
    return read_erasures(store) != erasures


def _name(store: ObjectStore, objects: Mapping[str, Ranges], parts: Mapping[str, Part]) -> Mapping[str, Ranges]:
    """Name objects in further generations of an erasure, until erasures name all of them with all of their ranges.

    Objects that several erasures name are named once more with the ranges of all of them, because they will have
    another SHA-256 than each erasure states.

    Returns:
        Ranges of the damaged objects, which no erasure can name.
    """
    for _ in range(_TRIES):
        erasures = read_erasures(store)
        new, damaged = _hash(store, erasures, {**dict.fromkeys(erasures.objects, ()), **objects}, parts)
        if read_erasures(store) != erasures:
            continue  # another process overwrites, which may look like damage
        if not new:
            return damaged
        _put_generation(store, max(erasures.images.values(), key=lambda each: each.record).record, new)
    raise StoreError(f"{store.uri}: {_TRIES} attempts to record an erasure met others; run the command again")


def _hash(
    store: ObjectStore, erasures: Erasures, objects: Mapping[str, Ranges], parts: Mapping[str, Part]
) -> tuple[list[ErasedObject], Mapping[str, Ranges]]:
    """Compute what an erasure has to state of objects, where no erasure states it yet.

    Returns:
        The objects, and the ranges of those that are damaged, so that no hash of them could be trusted.
    """
    lacking: dict[str, Ranges] = {}
    for key, ranges in objects.items():
        listed = erasures.objects.get(key, ())
        every = merged([*ranges, *(each for some in listed for each in some.ranges)])
        if every and every not in [some.ranges for some in listed]:
            lacking[key] = every
    new, damaged = [], {}
    hashed = _each(lambda key: _hash_one(store, erasures, key, lacking[key], parts.get(key)), list(lacking))
    for (key, ranges), sha256 in zip(lacking.items(), hashed, strict=True):
        if sha256:
            new.append(ErasedObject(key=key, ranges=tuple(ranges), sha256=sha256))
        elif sha256 is not None:
            damaged[key] = ranges
    return new, damaged


def _hash_one(store: ObjectStore, erasures: Erasures, key: str, ranges: Ranges, part: Part | None) -> str | None:
    """Hash an object as if ranges were zeros; "" where it is damaged, None where it is gone."""
    listed = erasures.objects.get(key, ())
    try:
        plain, zeroed, *others = zeroed_sha256s(store, key, [(), ranges, *(each.ranges for each in listed)])
    except NotFound:
        return None
    is_unknown = part is None and not listed
    is_as_recorded = part is not None and plain == part.sha256
    is_as_erased = any(sha256 == each.sha256 for sha256, each in zip(others, listed, strict=True))
    return zeroed if is_unknown or is_as_recorded or is_as_erased else ""


def _put_generation(store: ObjectStore, record: ShardAddress, new: Sequence[ErasedObject]) -> None:
    """Put the next generation of an erasure, which names further objects."""
    before = _newest(store, record)
    assert before is not None, f"{record} was read before"
    made = read_plan(store, before.made_by)
    first = read_plan(store, made.redoes) if made.redoes else made
    shard = replace(first.shard(before.shard), generation=before.generation + 1, previous=before.record_sha256)
    redone = make_plan(first.kind, [shard], first.settings, redoes=first.plan_id, home=first.home)
    plan = put_plan(store, redone)
    begin_attempt(store, plan, shard).commit(
        rejects=before.rejects, erased=[*before.erased, *new], stats=before.stats, committed_at=before.committed_at
    )


def _newest(store: ObjectStore, record: ShardAddress) -> Commit | None:
    """Read the newest generation of an erasure; None where there is no record."""
    names = [name for name in list_commits(store, record.plan_id) if name.lineage == record.lineage]
    return read_commit(store, max(names)) if names else None


def _reject(image_id: int, found: FoundImages, known: Erasures, reason: str) -> Reject:
    sha256 = found.source_sha256s.get(image_id, "")
    if not sha256 and image_id in known.images:
        sha256 = known.images[image_id].source_sha256
    return Reject(source=image_key(image_id), source_sha256=sha256, reason=ERASED, detail=reason, stage=Stage.FOLD)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Files of some images in one tar."""

    ranges: Ranges = ()
    keys: frozenset[str] = frozenset()
    """Keys of the images."""
    is_damaged: bool = False


def _find_files(
    store: ObjectStore, tars: Iterable[str], image_ids: Collection[int], on_progress: OnPhase = silent
) -> FoundImages:
    """Find the files of images in some tars; a tar that is gone holds none."""
    chosen, keys = sorted(tars), frozenset(map(image_key, image_ids))
    files = _each(lambda key: _find_in(store, key, keys), chosen, on_progress, "tars searched")
    found = dict(zip(chosen, files, strict=True))
    return FoundImages(
        source_sha256s={int(key, 16): "" for files in found.values() for key in files.keys},
        objects={key: files.ranges for key, files in found.items() if files.ranges},
        unreadable=tuple(key for key, files in found.items() if files.is_damaged),
    )


def _find_in(store: ObjectStore, tar: str, keys: Collection[str]) -> _Files:
    ranges, found = [], set()
    try:
        with store.open(tar) as stream:
            for span in find_files(stream, keys):
                ranges.append((span.offset, span.nbytes))
                found.add(span.key)
    except NotFound:
        return _Files()
    except Corrupt:
        return _Files(ranges=merged(ranges), keys=frozenset(found), is_damaged=True)
    return _Files(ranges=merged(ranges), keys=frozenset(found))


def _source_sha256s(store: ObjectStore, shard: Commit) -> dict[int, str] | None:
    """Map the image ids of an image shard to source_sha256; None where its rows are lost or damaged."""
    found: dict[int, str] = {}
    try:
        for part in shard.rows():
            rows = contents.read_rows(store, part).select(["image_id", "source_sha256"])
            found.update(zip(rows["image_id"].to_pylist(), rows["source_sha256"].to_pylist(), strict=True))
    except (NotFound, Corrupt):
        return None
    return found


def _image_ids(store: ObjectStore, shard: Commit) -> set[int]:
    return {each for part in shard.rows() for each in contents.read_rows(store, part)["image_id"].to_pylist()}


def _overwrite_ranges(store: ObjectStore, ranges: Mapping[str, Ranges], on_progress: OnPhase = silent) -> None:
    def overwrite_one(key: str) -> None:
        with suppress(NotFound):
            store.overwrite_with_zeros(key, ranges[key])

    _each(overwrite_one, sorted(ranges), on_progress, "tars overwritten")


def _remove_unfinished(store: ObjectStore, erasures: Erasures) -> None:
    """Remove half-written tars that hold an erased image. The writer of one fails, and makes its shard again."""
    uploads = 0
    for each in store.unfinished():
        if not (each.key.startswith("data/") and each.key.endswith(".tar")):
            continue
        try:
            store.head(each.handle)
        except (StoreError, ValueError):
            uploads += 1  # to a server, which shows nothing of them
            continue
        if _find_in(store, each.handle, erasures.keys).keys:
            store.remove_unfinished(each)
    if uploads:
        logger.warning("erase: %d uploads are unfinished; erase again when nobody writes any more", uploads)


def _each(work: Callable[[_T], _R], items: Sequence[_T], on_progress: OnPhase = silent, unit: str = "") -> list[_R]:
    """Call a function with each item, several at a time, and return the answers in order."""
    answers: list[_R] = []
    with ThreadPoolExecutor(max_workers=_READS_AT_ONCE) if len(items) >= _READS_AT_ONCE else nullcontext() as pool:
        on_progress(0, len(items), unit)
        for answer in pool.map(work, items) if pool else map(work, items):
            answers.append(answer)
            on_progress(len(answers), len(items), unit)
    return answers
