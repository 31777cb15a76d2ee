"""Erasures: the records that make images of a dataset unreadable for good, and what everybody else reads of them.

An erasure is a tombstone first. Its commit record names images, and the objects that hold them with the ranges of their
bytes; only then are these ranges overwritten with zeros, in place. From the record on nobody reads, folds or ingests
the images again. The SHA-256 of such an object is computed as if its ranges were zeros, so it is the same before, while
and after they are overwritten, and damage to the other images of the object is still noticed.

A new generation of an erasure names the same images, and also objects that were written after the generation before.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache

from storage.errors import Erased, NotFound
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, ErasedObject, Part, list_commits, newest_generations, read_commits
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.records import image_key

Ranges = Sequence[tuple[int, int]]
"""Pairs of the first byte and the number of bytes, ascending."""
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ErasedImage:
    """One image that was erased."""

    image_id: int
    """Id of the image."""
    source_sha256: str
    """SHA-256 of the photo's file, in hex; empty where the dataset's rows of the image were lost."""
    reason: str
    """Reason of the erasure."""
    erased_at: datetime
    """Time of the erasure's record, UTC."""
    record: ShardAddress
    """Address of the erasure's record; the first one where several erasures name the image."""

    def __str__(self) -> str:
        return f"image {image_key(self.image_id)} was erased on {self.erased_at:%Y-%m-%d}, because: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Erasures:
    """Erasures of a dataset, as their records state them."""

    images: Mapping[int, ErasedImage] = field(default_factory=dict)
    """Erased images by image_id."""
    objects: Mapping[str, tuple[ErasedObject, ...]] = field(default_factory=dict)
    """Objects that are overwritten in part, by key; several erasures may name one object."""

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys of the erased images, which are the names of their samples in tars."""
        return frozenset(image_key(image_id) for image_id in self.images)

    @cached_property
    def _lineages(self) -> frozenset[str]:
        return frozenset("/".join(key.split("/")[1:3]) for key in self.objects)

    def touch(self, shard: ShardAddress) -> bool:
        """Tell whether an object of the shard, of any generation, is overwritten in part."""
        return shard.lineage in self._lineages

    @property
    def ranges(self) -> dict[str, Ranges]:
        """Ranges that are overwritten in each object, by key."""
        return {key: merged(each for some in listed for each in some.ranges) for key, listed in self.objects.items()}

    def check(self, image_id: int) -> None:
        """Check that an image was not erased.

        Raises:
            Erased: The image was erased; the message says when and why.
        """
        if image_id in self.images:
            raise Erased(str(self.images[image_id]))


def read_erasures(store: ObjectStore, names: Iterable[ShardAddress] | None = None) -> Erasures:
    """Read erasures. Those that were read before are kept in memory, because records never change.

    Args:
        store: The store of the dataset.
        names: Addresses of the records to read; None for the newest generation of every erasure.

    Raises:
        Corrupt: A record is damaged.
    """
    if names is None:
        names = newest_generations(list_commits(store, kind=PlanKind.ERASURES))
    listed = tuple(sorted(names))
    return _read(store, listed) if listed else Erasures()  # type: ignore[arg-type]


@lru_cache(maxsize=8)
def _read(store: ObjectStore, names: tuple[ShardAddress, ...]) -> Erasures:
    return erasures_of(read_commits(store, names))


def erasures_of(commits: Iterable[Commit]) -> Erasures:
    """Collect what records of erasures state. A record that was given up names no image."""
    images: dict[int, ErasedImage] = {}
    objects: dict[str, tuple[ErasedObject, ...]] = {}
    for commit in commits:
        for reject in commit.rejects:
            erased = ErasedImage(
                image_id=int(reject.source, 16),
                source_sha256=reject.source_sha256,
                reason=reject.detail,
                erased_at=commit.committed_at,
                record=commit.address,
            )
            images.setdefault(erased.image_id, erased)
        for each in commit.erased:
            objects[each.key] = (*objects.get(each.key, ()), each)
    return Erasures(images=images, objects=objects)


def is_whole(store: ObjectStore, part: Part, erasures: Erasures) -> bool:
    """Tell whether an object is stored with the SHA-256 that its record states, or its erasures state."""
    listed = erasures.objects.get(part.key, ())
    try:
        found = zeroed_sha256s(store, part.key, [(), *(each.ranges for each in listed)])
    except NotFound:
        return False
    return is_expected(found, part, listed)


def is_expected(found: Sequence[str], part: Part, listed: Sequence[ErasedObject]) -> bool:
    """Tell whether hashes of an object are right.

    Args:
        found: SHA-256 of the object, and then, for each of `listed`, its SHA-256 as if the ranges were zeros.
        part: The object as its shard's record states it.
        listed: The object as erasures state it.
    """
    return found[0] == part.sha256 or any(sha256 == each.sha256 for sha256, each in zip(found[1:], listed, strict=True))


def zeroed_sha256s(store: ObjectStore, key: str, ranges: Sequence[Ranges]) -> list[str]:
    """Compute the SHA-256 of an object, in hex, once for each of `ranges`, as if these ranges were zeros.

    Raises:
        NotFound: There is no such object.
    """
    digests = [ZeroedDigest(some) for some in ranges]
    with store.open(key) as stream:
        while piece := stream.read(_READ_BYTES):
            for digest in digests:
                digest.update(piece)
    return [digest.hexdigest() for digest in digests]


class ZeroedDigest:
    """SHA-256 of bytes that come piece by piece, as if some ranges of them were zeros."""

    def __init__(self, ranges: Ranges) -> None:
        self._left, self._at, self._digest = list(ranges), 0, hashlib.sha256()

    def update(self, piece: bytes) -> None:
        """Take the next bytes."""
        stop = self._at + len(piece)
        while self._left and self._left[0][0] < stop:
            first, last = self._left[0][0], sum(self._left[0])
            begin, end = max(first, self._at) - self._at, min(last, stop) - self._at
            piece = piece[:begin] + bytes(max(0, end - begin)) + piece[max(begin, end) :]
            if last > stop:
                break
            self._left.pop(0)
        self._at = stop
        self._digest.update(piece)

    def hexdigest(self) -> str:
        """Return the SHA-256 of all bytes so far, in hex."""
        return self._digest.hexdigest()


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sort ranges, and leave out empty ones and those that lie in another one."""
    found: list[tuple[int, int]] = []
    for start, nbytes in sorted(set(ranges), key=lambda each: (each[0], -each[1])):
        if nbytes and not (found and start + nbytes <= sum(found[-1])):
            found.append((start, nbytes))
    return tuple(found)
