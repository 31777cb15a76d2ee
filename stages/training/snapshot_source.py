"""Snapshot of a dataset as training data: each image with the masks it had then, without the withdrawn masks.

Images that were erased since then are passed over.

snapshot -> shards of images -> rows of an image and of its masks -> two range reads -> Sample

The snapshot's tables and the seed decide every choice, so that any process can start at any sample. Samples are
numbered. Worker i of n takes every n-th number from i on, and a stream that broke off continues after the last number
seen.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.random import Generator

from engine.images import decode
from engine.training.photos import DECODED_PHOTOS, cut_some_photo
from engine.training.sources import Cut, WindowConfig
from storage import rle
from storage.dataset import Dataset
from storage.errors import Erased
from storage.formats.sa1b import sa1b_json
from storage.protocol.inputs import PlanKind, image_inputs, image_shard, inputs_from_json
from storage.records import ImageRecord, MaskRecord
from storage.tables.samples import IMAGE_COLUMNS, MASK_COLUMNS, read_image, read_masks
from storage.tables.sql import are_shards, is_shard, one_of

SHARDS_AT_HAND = 32
"""Number of image shards from which a source draws at a time, and whose rows it keeps in memory, about 2 MB each."""
STEPS_A_SET = 50
"""Number of training steps for which a source draws from the same image shards."""
ANYWHERE = ""
"""Key of the mask shards whose records name no image shard as their input."""
IMAGES_TRIED = 1000
"""Maximum number of images that a source draws from a set of shards to find one with masks."""


@dataclass(frozen=True, kw_only=True)
class SplitSide:
    """Side of a split of images by id, either the training or the held-out images; equal in every snapshot."""

    held_out_every: int
    """Number of images of which one is held out. An id is the first bits of a hash, so that the choice is as good as
    random.
    """
    held_out: bool
    """Whether this side holds the held-out images (else the training images)."""

    def __contains__(self, image_id: int) -> bool:
        return (image_id % self.held_out_every == 0) == self.held_out


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its masks."""

    position: int
    """Position of the sample in the stream; a call with `start` one higher continues after it."""
    image: ImageRecord
    data: bytes
    """Bytes of the stored JPEG or PNG."""
    masks: tuple[MaskRecord, ...]

    def to_webdataset(self) -> dict[str, Any]:
        """Return the sample in the form of the `webdataset` library: `__key__`, image bytes and masks as SA-1B JSON."""
        annotations = json.dumps(sa1b_json(self.image, self.masks), separators=(",", ":"))
        return {"__key__": self.image.key, self.image.format: self.data, "json": annotations.encode()}


def training_samples(
    dataset: Dataset,
    snapshot: str,
    *,
    seed: int = 0,
    worker: int = 0,
    workers: int = 1,
    start: int = 0,
    model_ids: Collection[str] = (),
) -> Iterator[Sample]:
    """Read each image of a snapshot that has masks once, in an order that depends on `seed`.

    Shards are shuffled, and images are shuffled within their shard. Each sample is read by exactly one of
    the workers, and the sample's position does not depend on the number of workers.

    Args:
        seed: seed of the order.
        worker: number of this worker, from 0 to `workers` - 1.
        workers: number of workers that share the samples.
        start: position of the first sample.
        model_ids: ids of the models whose masks to read; empty: all models.

    Raises:
        ValueError: `worker` is not one of the workers.
        NotFound: There is no such snapshot.
        Corrupt: An image or a mask is not where its row says.
    """
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} of {workers}: expected 0 to {workers - 1}")
    images = SnapshotImages(dataset, snapshot, model_ids=model_ids)
    for position, number in images.shuffled(seed, start):
        if position % workers == worker:
            sample = images.read(number, position=position)
            if sample is not None:
                yield sample


def count_images(
    dataset: Dataset, snapshot: str, *, held_out_every: int, model_ids: Collection[str] = ()
) -> tuple[int, int]:
    """Count the images with masks: those to train on, and those held out.

    Raises:
        NotFound: There is no such snapshot.
    """
    sql = (
        f"SELECT image_id % {held_out_every} = 0 AS held_out, count(DISTINCT image_id) AS images FROM masks "
        f"WHERE true{_only(model_ids)} GROUP BY 1"
    )
    counts = {row["held_out"]: row["images"] for row in dataset.query(sql, snapshot).to_pylist()}
    return counts.get(False, 0), counts.get(True, 0)


class SnapshotImages:
    """Images of a snapshot, each with its masks; an image is read by its number in the snapshot."""

    def __init__(
        self,
        dataset: Dataset,
        snapshot: str,
        *,
        model_ids: Collection[str] = (),
        shards_at_hand: int = SHARDS_AT_HAND,
    ) -> None:
        """Open a snapshot.

        Args:
            dataset: The dataset.
            snapshot: Id of the snapshot.
            model_ids: Models whose masks alone are read; empty: all masks.
            shards_at_hand: Number of image shards whose rows stay in memory; 1 for images read in their order.
        """
        self._dataset, self._snapshot = dataset, snapshot
        self._only = _only(model_ids)
        self._erased = dataset.erasures().images
        counted = "SELECT plan, shard, count(*) AS images FROM images GROUP BY plan, shard ORDER BY plan, shard"
        self._homes = dataset.query(counted, snapshot).to_pylist()
        self._starts = list(accumulate((home["images"] for home in self._homes), initial=0))
        sql = "SELECT plan, shard, inputs FROM shards WHERE kind IN ('masks', 'amendments') AND masks > 0"
        masked = dataset.query(f"{sql} ORDER BY plan, shard", snapshot).to_pylist()
        if model_ids:  # each mask says who made it; a shard may hold masks of several models
            sql = f"SELECT DISTINCT plan, shard FROM masks WHERE true{self._only}"
            theirs = {(row["plan"], row["shard"]) for row in dataset.query(sql, snapshot).to_pylist()}
            masked = [row for row in masked if (row["plan"], row["shard"]) in theirs]
        self._masked_in = _mask_shards(masked)
        self._rows = lru_cache(maxsize=shards_at_hand)(self._query_rows)

    def __len__(self) -> int:
        """Return the number of images, with masks or without."""
        return int(self._starts[-1])

    def shuffled(self, seed: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Yield (position, number) of every image from position `start` on, in shuffled order."""
        position = 0
        for home in np.random.default_rng([seed, 0]).permutation(len(self._homes)):
            images = self._starts[home + 1] - self._starts[home]
            if position + images > start:
                order = np.random.default_rng([seed, 1, home]).permutation(images)
                for place in range(max(0, start - position), images):
                    yield position + place, self._starts[home] + int(order[place])
            position += images

    @property
    def shards_with_masks(self) -> list[int]:
        """Return the numbers of the image shards that have masks."""
        return [number for number, home in enumerate(self._homes) if self._mask_shards_of(home)]

    def numbers_in(self, shard: int) -> range:
        """Return the numbers of the images in an image shard."""
        return range(self._starts[shard], self._starts[shard + 1])

    def image_id(self, number: int) -> int:
        """Return the id of the image with this number."""
        home = self._home(number)
        return int(self._rows(home)[0][number - self._starts[home]]["image_id"])

    def _mask_shards_of(self, home: dict[str, Any]) -> list[tuple[str, str]]:
        """Return (plan, shard) of each mask shard that may hold masks of an image shard's images."""
        return self._masked_in.get(f"{home['plan']}/{home['shard']}", []) + self._masked_in.get(ANYWHERE, [])

    def _home(self, number: int) -> int:
        return int(np.searchsorted(self._starts, number, side="right")) - 1

    def read(self, number: int, *, position: int = 0) -> Sample | None:
        """Read the image with this number; return None for an image without masks, and for one that was erased.

        Raises:
            Corrupt: The image or a mask is not where its row says.
        """
        home = self._home(number)
        images, masks, mask_image_ids = self._rows(home)
        row = images[number - self._starts[home]]
        first, last = np.searchsorted(mask_image_ids, [row["image_id"], row["image_id"] + 1])
        if first == last or row["image_id"] in self._erased:
            return None
        try:
            image, data = read_image(self._dataset.store, row)
            placed = read_masks(self._dataset.store, masks.slice(first, last - first).to_pylist())
        except Erased:  # since this object was made
            return None
        return Sample(position=position, image=image, data=data, masks=tuple(placed))

    def _query_rows(self, home: int) -> tuple[list[dict[str, Any]], Any, np.ndarray]:
        """Query the rows of a shard's images and masks; return both by image id."""
        shard = self._homes[home]
        here = is_shard(shard["plan"], shard["shard"])
        images = self._query(
            f"SELECT {', '.join(IMAGE_COLUMNS)} FROM images WHERE {here} ORDER BY image_id"
        ).to_pylist()
        there = are_shards(self._mask_shards_of(shard))
        masks = self._query(
            f"SELECT {', '.join(MASK_COLUMNS)} FROM masks WHERE ({there}){self._only} ORDER BY image_id, part, ordinal"
        )
        return images, masks, masks.column("image_id").to_numpy()

    def _query(self, sql: str) -> Any:
        return self._dataset.query(sql, self._snapshot)


class SnapshotSource:
    """Source of training windows: images of a snapshot, or of one side of a split, all about equally often.

    Opening a shard costs two queries, and a dataset may have thousands of shards. Therefore each step draws images from
    a set of at most `SHARDS_AT_HAND` shards, and the set changes every `STEPS_A_SET` steps. The sets are the same in
    every process. A caller of only a few steps, for example calibration, usually sees a single set.
    """

    def __init__(
        self, dataset: Dataset, snapshot: str, *, model_ids: Collection[str] = (), side: SplitSide | None = None
    ) -> None:
        self._made_of = (dataset, snapshot, tuple(model_ids), side)
        self._images = SnapshotImages(dataset, snapshot, model_ids=model_ids)
        self._shards = self._images.shards_with_masks
        self._side = side
        self._where = f"{dataset.uri}: snapshot {snapshot}"
        self._decoded = lru_cache(maxsize=DECODED_PHOTOS)(self._decode)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the dataset's address; the other process opens the dataset again."""
        dataset, snapshot, model_ids, side = self._made_of
        return _reopened, (dataset.uri, snapshot, model_ids, side)

    def prepare(self, step: int) -> None:
        """Do nothing: the images need no preparation."""

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Cut a window out of a random image, with some of the image's masks as ground truth.

        Raises:
            ValueError: None of the many images drawn has masks.
            RuntimeError: No mask is of a size to train on in the windows that were tried.
        """
        return cut_some_photo(lambda: self._draw(rng, step), rng, window, prompts)

    def cut_all(self, rng: Generator, step: int, window: WindowConfig) -> Cut:
        """Cut a window out of a random image, with every mask of a size to train on.

        Raises:
            ValueError: None of the many images drawn has masks.
            RuntimeError: No mask is of a size to train on in the windows that were tried.
        """
        return cut_some_photo(lambda: self._draw(rng, step), rng, window, None)

    def shards_at(self, step: int) -> list[int]:
        """Return the numbers of the image shards that a training step draws from."""
        sets = -(-len(self._shards) // SHARDS_AT_HAND)
        if sets <= 1:
            return self._shards
        turn, place = divmod(step // STEPS_A_SET, sets)
        shards: list[int] = np.random.default_rng([0, turn]).permutation(self._shards)[place::sets].tolist()
        return shards

    def _draw(self, rng: Generator, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw an image from the step's shards, or from later shards where the step's shards have no masks."""
        sets = -(-len(self._shards) // SHARDS_AT_HAND)
        for turns in range(2 * sets):  # as many as surely hold each set once
            numbers = [self._images.numbers_in(shard) for shard in self.shards_at(step + turns * STEPS_A_SET)]
            drawn = self._draw_of(rng, numbers)
            if drawn is not None:
                return drawn
        raise ValueError(f"{self._where}: got no masks to train on; `gigamask masks` makes some, then take a snapshot")

    def _draw_of(self, rng: Generator, numbers: list[range]) -> tuple[np.ndarray, np.ndarray] | None:
        ends = np.cumsum([len(of_shard) for of_shard in numbers])
        for _ in range(IMAGES_TRIED):
            place = int(rng.integers(ends[-1]))
            shard = int(np.searchsorted(ends, place, side="right"))
            number = numbers[shard][place - int(ends[shard])]  # counted from the shard's end
            if self._side is None or self._images.image_id(number) in self._side:
                drawn = self._decoded(number)
                if drawn is not None:
                    return drawn
        return None

    def _decode(self, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        sample = self._images.read(number)
        if sample is None:
            return None
        return decode(sample.data), np.stack([rle.decode(mask.rle) for mask in sample.masks]).astype(np.uint8)


def _reopened(uri: str, snapshot: str, model_ids: tuple[str, ...], side: SplitSide | None) -> SnapshotSource:
    return SnapshotSource(Dataset.open(uri), snapshot, model_ids=model_ids, side=side)


def _mask_shards(rows: list[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Map each image shard to the (plan, shard) of the mask shards made from any of its generations.

    Mask shards whose records name no image shard are under the key ANYWHERE.
    """
    made: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        inputs = inputs_from_json(PlanKind.AMENDMENTS, row["inputs"].split())
        homes = {image_shard(images).lineage for images in image_inputs(inputs)}
        for home in homes or {ANYWHERE}:
            made.setdefault(home, []).append((row["plan"], row["shard"]))
    return made


def _only(model_ids: Collection[str]) -> str:
    return f" AND model_id IN {one_of(sorted(model_ids))}" if model_ids else ""
