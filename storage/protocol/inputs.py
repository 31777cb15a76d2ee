"""Inputs that a shard is made from: types in code, strings in plans, commit records and the table `shards`.

The strings of a shard are read from left to right:

    plans of images       `<source>TAB<place>TAB<nbytes>TAB<mtime_ns>`       one photo (`PhotoKey`)
    plans of masks        `<plan>/<shard>.g<generation>`                     all images of a shard (`ShardAddress`)
                          followed by `<start>:<stop>`                       a range of them (`ImageRange`)
                          or by `<place>,<place>,...`                        some of them (`ImageSet`)
                          `!<image_id>/<mask_id>`                            a mask to exclude (`KeptOut`)
    plans of withdrawals  `<image_id>/<mask_id>`                             one mask to withdraw (`MaskKey`)
    plans of amendments   those of masks and those of withdrawals
    plans of erasures     `@<key>`                                           one image (`ImageKey`)

A place is an image's index in its shard, which never changes: a redo adds images behind the others.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

_ADDRESS = re.compile(r"([A-Za-z0-9_-]+)/([A-Za-z0-9_-]+)\.g(0|[1-9][0-9]{0,17})")
_RANGE = re.compile(r"(0|[1-9][0-9]*):([1-9][0-9]*)")
_PLACES = re.compile(r"(0|[1-9][0-9]*)(,[1-9][0-9]*)*")
_MASK = re.compile(r"(0|[1-9][0-9]*)/(0|[1-9][0-9]*)")
_PLACE = re.compile(r"[0-9a-f]{12}")
_IMAGE = re.compile(r"@([0-7][0-9a-f]{15})")


class PlanKind(StrEnum):
    """Kind of records in a plan's shards; a plan's id begins with the name of its kind."""

    IMAGES = "images"
    MASKS = "masks"
    WITHDRAWALS = "withdrawals"
    ERASURES = "erasures"
    """Images that are erased for good."""
    AMENDMENTS = "amendments"
    """Masks that take the place of other masks: the same fold adds the new masks and removes the withdrawn ones."""

    @property
    def table(self) -> str:
        """Name of the table that the rows of the shards belong into; empty for none."""
        return {PlanKind.IMAGES: "images", PlanKind.MASKS: "masks", PlanKind.AMENDMENTS: "masks"}.get(self, "")


@dataclass(frozen=True, kw_only=True, order=True)
class ShardAddress:
    """Address of one generation of a shard.

    As an input of a mask shard, the address of an image shard stands for all images of that image shard.
    """

    plan_id: str
    shard: str
    generation: int = 0

    def __str__(self) -> str:
        return f"{self.plan_id}/{self.shard}.g{self.generation}"

    @classmethod
    def parse(cls, text: str) -> "ShardAddress":
        """Read `<plan>/<shard>.g<generation>`.

        Raises:
            ValueError: The text has another form.
        """
        found = _ADDRESS.fullmatch(text)
        if not found:
            raise ValueError(f"shard address {text!r}: expected <plan>/<shard>.g<generation>")
        return cls(plan_id=found[1], shard=found[2], generation=int(found[3]))

    @classmethod
    def of_key(cls, key: str) -> "ShardAddress":
        """Read the key of a commit record.

        Raises:
            ValueError: The key has another form.
        """
        if not (key.startswith("commits/") and key.endswith(".json")):
            raise ValueError(f"object key {key!r}: expected commits/<plan>/<shard>.g<generation>.json")
        return cls.parse(key.removeprefix("commits/").removesuffix(".json"))

    @property
    def key(self) -> str:
        """Key of the shard's commit record."""
        return f"commits/{self}.json"

    @property
    def lineage(self) -> str:
        """Plan and name of the shard as `<plan>/<shard>`, which is the same for every generation."""
        return f"{self.plan_id}/{self.shard}"

    @property
    def kind(self) -> str:
        """Kind of the shard's plan, read from the beginning of the plan's id."""
        return self.plan_id.partition("-")[0]

    @property
    def before(self) -> "ShardAddress":
        """Address of the previous generation of the shard.

        Raises:
            ValueError: This address is of generation 0, which has no previous generation.
        """
        if self.generation == 0:
            raise ValueError(f"shard {self} is generation 0 and replaces none")
        return ShardAddress(plan_id=self.plan_id, shard=self.shard, generation=self.generation - 1)


@dataclass(frozen=True, kw_only=True)
class ImageRange:
    """Consecutive images of an image shard: those at the places `start` to `stop` - 1, counted from 0."""

    shard: ShardAddress
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"images {self.start}:{self.stop} of {self.shard}: expected 0 <= start < stop")

    @property
    def places(self) -> range:
        """Places of the images in their shard."""
        return range(self.start, self.stop)


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Single images of an image shard, given by their places in ascending order."""

    shard: ShardAddress
    places: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.places or list(self.places) != sorted(set(self.places)) or self.places[0] < 0:
            raise ValueError(f"images {self.places} of {self.shard}: expected places, ascending, each once")


@dataclass(frozen=True, kw_only=True, order=True)
class MaskKey:
    """Key of one mask of the dataset: the image_id and the mask_id.

    A mask_id alone is unique only within one image.
    """

    image_id: int
    mask_id: int

    def __str__(self) -> str:
        return f"{self.image_id}/{self.mask_id}"

    @classmethod
    def parse(cls, text: str) -> "MaskKey":
        """Read `<image_id>/<mask_id>`.

        Raises:
            ValueError: The text has another form, or an id has more than 63 bits.
        """
        found = _MASK.fullmatch(text)
        if not found or not all(int(each) < 2**63 for each in found.groups()):
            raise ValueError(f"mask {text!r}: expected <image_id>/<mask_id>, two 63-bit numbers")
        return cls(image_id=int(found[1]), mask_id=int(found[2]))


@dataclass(frozen=True, kw_only=True, order=True)
class ImageKey:
    """Key of one image, which an erasure names whatever shards hold the image."""

    image_id: int

    def __str__(self) -> str:
        return f"@{self.image_id:016x}"

    @classmethod
    def parse(cls, text: str) -> "ImageKey":
        """Read `@<key>`, where the key is the image_id as 16 hex digits.

        Raises:
            ValueError: The text has another form.
        """
        found = _IMAGE.fullmatch(text)
        if not found:
            raise ValueError(f"image {text!r}: expected @ and a 63-bit id as 16 hex digits")
        return cls(image_id=int(found[1], 16))


@dataclass(frozen=True, kw_only=True)
class KeptOut:
    """Input of a mask shard that keeps one mask out of the shard.

    For example, a mask that was prefilled must not be stored again.
    """

    mask: MaskKey


@dataclass(frozen=True, kw_only=True, order=True)
class PhotoKey:
    """Key of a photo as ingest found it: name, place, size and time.

    A difference in the key shows that the file changed.
    """

    source: str
    """Name in the dataset: `<folder given>/<path below it>`."""
    place: str
    """First 12 hex digits of the SHA-256 of the photo's real path, to tell files of the same name apart."""
    nbytes: int
    mtime_ns: int

    def __str__(self) -> str:
        return f"{self.source}\t{self.place}\t{self.nbytes}\t{self.mtime_ns}"

    @property
    def source_and_place(self) -> tuple[str, str]:
        """Source and place of the photo. They stay the same when the content of the file changes."""
        return self.source, self.place

    @property
    def name_and_size(self) -> tuple[str, int]:
        """Name and size of the photo. They stay the same when the file is copied, or moved with its folder."""
        return self.source, self.nbytes

    @classmethod
    def parse(cls, text: str) -> "PhotoKey":
        """Read `<source>TAB<place>TAB<nbytes>TAB<mtime_ns>`; a source may hold tabs.

        Raises:
            ValueError: The text has another form.
        """
        source, *rest = text.rsplit("\t", 3)
        try:
            place, nbytes, mtime_ns = rest
            key = cls(source=source, place=place, nbytes=int(nbytes), mtime_ns=int(mtime_ns))
        except ValueError:
            key = None
        if key is None or not source or not _PLACE.fullmatch(place) or str(key) != text:
            raise ValueError(f"photo {text!r}: expected <source>, <place>, <nbytes> and <mtime_ns> with tabs between")
        return key


Input = PhotoKey | ShardAddress | ImageRange | ImageSet | KeptOut | MaskKey | ImageKey
Images = ShardAddress | ImageRange | ImageSet

_ALLOWED: dict[PlanKind, tuple[type, ...]] = {
    PlanKind.IMAGES: (PhotoKey,),
    PlanKind.MASKS: (ShardAddress, ImageRange, ImageSet, KeptOut),
    PlanKind.WITHDRAWALS: (MaskKey,),
    PlanKind.AMENDMENTS: (ShardAddress, ImageRange, ImageSet, KeptOut, MaskKey),
    PlanKind.ERASURES: (ImageKey,),
}
_PARSERS: dict[PlanKind, Callable[[str], Input]] = {
    PlanKind.IMAGES: PhotoKey.parse,
    PlanKind.WITHDRAWALS: MaskKey.parse,
    PlanKind.ERASURES: ImageKey.parse,
}
"""Functions that read an input, for the kinds whose inputs take one string each."""


def check_inputs(kind: PlanKind, inputs: Sequence[Input]) -> None:
    """Check that shards of the given kind can be made from the given inputs.

    Raises:
        ValueError: An input belongs to another kind of shard.
    """
    for each in inputs:
        if not isinstance(each, _ALLOWED[kind]):
            expected = " or ".join(allowed.__name__ for allowed in _ALLOWED[kind])
            raise ValueError(f"a shard of {kind} cannot be made from {type(each).__name__} {each}; expected {expected}")


def inputs_to_json(inputs: Iterable[Input]) -> list[str]:
    """Convert the inputs of a shard to the strings that plans and records store."""
    texts: list[str] = []
    for each in inputs:
        match each:
            case ImageRange():
                texts += [str(each.shard), f"{each.start}:{each.stop}"]
            case ImageSet():
                texts += [str(each.shard), ",".join(map(str, each.places))]
            case KeptOut():
                texts.append(f"!{each.mask}")
            case _:
                texts.append(str(each))
    return texts


def inputs_from_json(kind: PlanKind, texts: Sequence[str]) -> tuple[Input, ...]:
    """Convert stored strings to the inputs of a shard of the given kind.

    Raises:
        ValueError: A string has none of the forms that this kind of shard knows.
    """
    if kind in _PARSERS:
        return tuple(_PARSERS[kind](text) for text in texts)
    inputs: list[Input] = []
    for text in texts:
        last = inputs[-1] if inputs else None
        if kind is PlanKind.AMENDMENTS and _MASK.fullmatch(text):
            inputs.append(MaskKey.parse(text))
        elif text.startswith("!"):
            inputs.append(KeptOut(mask=MaskKey.parse(text[1:])))
        elif isinstance(last, ShardAddress) and (found := _RANGE.fullmatch(text)):
            inputs[-1] = ImageRange(shard=last, start=int(found[1]), stop=int(found[2]))
        elif isinstance(last, ShardAddress) and _PLACES.fullmatch(text):
            inputs[-1] = ImageSet(shard=last, places=tuple(map(int, text.split(","))))
        else:
            inputs.append(ShardAddress.parse(text))
    return tuple(inputs)


def name_from_inputs(inputs: Iterable[Input]) -> str:
    """Return the name that a shard has because of its inputs: the first 16 hex digits of their SHA-256.

    Two plans that name the same inputs so name the same shard.
    """
    return hashlib.sha256(json.dumps(inputs_to_json(inputs)).encode()).hexdigest()[:16]


def photo_inputs(inputs: Iterable[Input]) -> list[PhotoKey]:
    """Return only the photos among the inputs of an image shard."""
    return [each for each in inputs if isinstance(each, PhotoKey)]


def withdrawn_inputs(inputs: Iterable[Input]) -> list[MaskKey]:
    """Return only the masks that a shard of withdrawals or amendments withdraws."""
    return [each for each in inputs if isinstance(each, MaskKey)]


def image_inputs(inputs: Iterable[Input]) -> list[Images]:
    """Return only the images among the inputs of a mask shard, without its excluded masks."""
    return [each for each in inputs if isinstance(each, Images)]


def image_shard(images: Images) -> ShardAddress:
    """Return the address of the image shard that holds the given images."""
    return images if isinstance(images, ShardAddress) else images.shard
