"""Which records are in the tables after a fold, and which images of theirs stay out, because another shard has them.

It follows from the log of folds and the shards' own bytes: the first record in the order of the folds owns an image.
The copy in a later one, and masks that were made from it, stay out; so do masks of an image that a mask shard of the
same settings and the same image shard has already. A redo may have the settings of another plan; then masks of the same
image and settings clash. What a fold lists is decided anew, in its order.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Place = tuple[str, str]
"""Plan, or home of plans, and name of a shard."""


class Contents(Protocol):
    """What is asked of a dataset."""

    def image_ids(self, record: Any) -> frozenset[int]:
        """Images in an image shard, or images that a mask shard has masks of."""

    def source_of(self, record: Any) -> Place:
        """The image shard that a mask shard was made from."""

    def settings_of(self, record: Any) -> str:
        """The hash of the settings of a mask shard's home."""

    def masks_made(self, record: Any) -> frozenset[tuple[int, str]]:
        """Image and hash of the settings of all masks in a mask shard."""


@dataclass
class State:
    """What is in the tables after a fold."""

    taken: dict[Place, Any] = field(default_factory=dict)
    """Records by place."""
    copies: dict[Place, frozenset[int]] = field(default_factory=dict)
    """Images whose rows stay out."""

    def fold(self, records: Iterable[Any], contents: Contents) -> None:
        """Take records in this order."""
        new = list(records)
        for record in new:
            self.taken.pop(record.place, None)
            self.copies.pop(record.place, None)
        for record in sorted(new, key=lambda each: each.kind):  # images before masks, else in their order
            if record.kind == "images":
                owned = self._owned("images", contents)
                self.copies[record.place] = contents.image_ids(record) & owned
            elif record.kind == "masks":
                source = contents.source_of(record)
                of_copies = self.copies.get(source, frozenset())
                masked = self._owned("masks", contents, source=source, settings=contents.settings_of(record))
                clashing = self._clashing(record, contents, source)
                self.copies[record.place] = contents.image_ids(record) & (of_copies | masked | clashing)
            self.taken[record.place] = record

    def rebuild(self, records: Iterable[Any], contents: Contents) -> None:
        """Hold exactly these records: those of before as they were, then new shards, then new generations."""
        listed = list(records)
        before = dict(self.taken)
        self.taken = {each.place: each for each in listed if before.get(each.place) == each}
        self.copies = {place: ids for place, ids in self.copies.items() if place in self.taken}
        self.fold((each for each in listed if each.place not in before), contents)
        self.fold((each for each in listed if before.get(each.place, each) != each), contents)

    def _clashing(self, record: Any, contents: Contents, source: Place) -> frozenset[int]:
        """Images of a mask shard that another one, from the same image shard, masked with the same settings."""
        own, images = contents.masks_made(record), set()
        for other in self.taken.values():
            if other.kind == "masks" and contents.source_of(other) == source:
                out = self.copies.get(other.place, frozenset())
                images |= {image for image, _ in own & contents.masks_made(other)} - out
        return frozenset(images)

    def _owned(self, kind: str, contents: Contents, **wanted: object) -> frozenset[int]:
        """Images that shards of a kind hold in the tables; of masks, those of these settings and this image shard."""
        owned: set[int] = set()
        for record in self._alike(kind, contents, wanted):
            owned |= contents.image_ids(record) - self.copies.get(record.place, frozenset())
        return frozenset(owned)

    def _alike(self, kind: str, contents: Contents, wanted: Mapping[str, object]) -> Iterator[Any]:
        for record in self.taken.values():
            if record.kind == kind and (
                not wanted or wanted == {"source": contents.source_of(record), "settings": contents.settings_of(record)}
            ):
                yield record
