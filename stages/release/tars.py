"""One tar of a release, with the rows of its images and masks: the unit that is written whole or again."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.release import rows
from stages.release.choose import Choice
from stages.release.config import ReleaseConfig
from stages.release.folder import ReleaseFolder
from stages.release.pictures import Picture, make_picture
from stages.training.snapshot_source import Sample, SnapshotImages, SplitSide
from storage.errors import Corrupt, Erased
from storage.formats.sa1b import sa1b_json
from storage.formats.tar_shards import Member, write_shard
from storage.records import ImageRecord, MaskRecord, image_key

_ROWS_A_GROUP = 20_000
"""Number of rows after which a Parquet file gets a new row group, and so the most rows in memory."""


@dataclass(kw_only=True)
class PartCounts:
    """Counts over the images and masks of one tar, by name."""

    licenses: Counter[str] = field(default_factory=Counter)
    """Images by licence."""
    countries: Counter[str] = field(default_factory=Counter)
    """Images by country."""
    changes: Counter[str] = field(default_factory=Counter)
    """Images by what became of the stored one."""
    splits: Counter[str] = field(default_factory=Counter)
    """Images by split."""
    profiles: Counter[str] = field(default_factory=Counter)
    """Images with a colour profile that was kept, or left out because it cannot be read."""
    stages: Counter[str] = field(default_factory=Counter)
    """Masks by stage."""
    models: Counter[str] = field(default_factory=Counter)
    """Masks by model version."""

    def add(self, image: ImageRecord, picture: Picture, split: str, masks: tuple[MaskRecord, ...]) -> None:
        """Count one image and its masks."""
        self.licenses[image.license] += 1
        self.countries[image.country] += 1
        self.changes[picture.change] += 1
        self.splits[split] += 1
        self.profiles["kept"] += picture.has_profile
        self.profiles["unreadable"] += picture.lost_profile
        self.stages.update(mask.provenance.stage for mask in masks)
        self.models.update(mask.provenance.model_id for mask in masks)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return the counts as JSON values, sorted by name."""
        return {name: dict(sorted(counts.items())) for name, counts in vars(self).items()}


class TarWriter:
    """Writer of the tars of one release."""

    def __init__(self, folder: ReleaseFolder, images: SnapshotImages, choice: Choice, config: ReleaseConfig) -> None:
        self._folder, self._images, self._choice, self._config = folder, images, choice, config
        self._first_ids = np.cumsum(choice.mask_counts) - choice.mask_counts + 1
        self._holdout = SplitSide(held_out_every=config.holdout_every, held_out=True)

    @property
    def count(self) -> int:
        """Number of tars."""
        return -(-len(self._choice) // self._config.images_per_tar)

    def finished(self, number: int) -> dict[str, Any] | None:
        """Return what is in a tar that was written before; None for one that is still to be written."""
        return self._folder.finished_part(_name(number))

    def write(self, number: int, on_image: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
        """Write a tar and the rows of its images and masks; return what is in them.

        Args:
            number: Number of the tar.
            on_image: Function that is called after each image that is written, with the number of its masks.

        Raises:
            Corrupt: A stored image or mask is not what its row says.
            Erased: An image was erased after the release had begun.
        """
        name = _name(number)
        counts = PartCounts()
        first = number * self._config.images_per_tar
        stop = min(first + self._config.images_per_tar, len(self._choice))
        paths = [f"{name}.tar", f"images/{name}.parquet", f"masks/{name}.parquet"]
        with ExitStack() as stack:
            tar, images_path, masks_path = (stack.enter_context(self._folder.new_file(path)) for path in paths)
            image_rows = stack.enter_context(_Table(images_path, rows.IMAGES))
            mask_rows = stack.enter_context(_Table(masks_path, rows.MASKS))
            with tar.open("xb") as file:
                write_shard(file, self._members(range(first, stop), paths[0], counts, image_rows, mask_rows, on_image))
        record = {
            "images": stop - first,
            "masks": int(self._choice.mask_counts[first:stop].sum()),
            "counts": counts.to_json(),
            "files": [self._folder.describe(path).to_json() for path in paths],
        }
        self._folder.finish_part(name, record)
        return record

    def _members(
        self,
        indexes: range,
        tar: str,
        counts: PartCounts,
        image_rows: "_Table",
        mask_rows: "_Table",
        on_image: Callable[[int], None],
    ) -> Iterator[Member]:
        """Make the files of the images that leave one after the other, and their rows in the tables."""
        for index in indexes:
            sample = self._read(index)
            image, masks = self._renumbered(index, sample)
            picture = self._picture(sample)
            split = "holdout" if sample.image.image_id in self._holdout else "train"
            place = {"image_id": image.image_id, "file_name": f"{image.key}.jpg", "tar": tar, "split": split}
            counts.add(image, picture, split, masks)
            image_rows.add(_image_row(image, picture, place, len(masks), self._config))
            document = sa1b_json(image, masks)
            for annotation, mask in zip(document["annotations"], masks, strict=True):
                made_by = {"stage": mask.provenance.stage, "model_id": mask.provenance.model_id}
                mask_rows.add(rows.mask_row(annotation, place) | made_by)
            text = json.dumps(document, separators=(",", ":"), allow_nan=False)
            yield Member(key=image.key, parts={"jpg": picture.data, "json": text.encode()})
            on_image(len(masks))

    def _read(self, index: int) -> Sample:
        """Read an image that leaves, with its masks."""
        choice = self._choice
        image_id = int(choice.image_ids[index])
        sample = self._images.read(int(choice.places[index]))
        if sample is None:
            raise Erased(f"image {image_key(image_id)} was erased while it was to be released; give a new folder")
        masks = tuple(mask for mask in sample.masks if (image_id, mask.mask_id) not in choice.withdrawn)
        if sample.image.image_id != image_id or len(masks) != choice.mask_counts[index]:
            raise Corrupt(
                f"image {image_key(image_id)}: {len(masks)} masks of image {sample.image.key} were read, "
                f"{choice.mask_counts[index]} expected; run `gigamask verify`"
            )
        return replace(sample, masks=masks)

    def _renumbered(self, index: int, sample: Sample) -> tuple[ImageRecord, tuple[MaskRecord, ...]]:
        """Give an image and its masks the numbers and the name that they have in the release."""
        number, first = index + 1, int(self._first_ids[index])
        image = replace(sample.image, image_id=number, key=f"sa_{number}", format="jpg")
        masks = (replace(mask, mask_id=first + k, image_id=number) for k, mask in enumerate(sample.masks))
        return image, tuple(masks)

    def _picture(self, sample: Sample) -> Picture:
        image = sample.image
        try:
            return make_picture(sample.data, image.format, (image.height, image.width))
        except (ValueError, OSError) as error:
            raise Corrupt(f"image {image.key}: {error}; run `gigamask verify`") from error


def _name(number: int) -> str:
    return f"sa_{number:06d}"


def _image_row(
    image: ImageRecord, picture: Picture, place: dict[str, Any], masks: int, config: ReleaseConfig
) -> dict[str, Any]:
    return {
        **place,
        **rows.picture_columns(picture.data),
        "height": image.height,
        "width": image.width,
        "masks": masks,
        "license": image.license,
        "source": _below_folder(image.source) if config.with_sources else "",
        "country": image.country,
        "change": picture.change,
    }


def _below_folder(source: str) -> str:
    """Remove the name of the folder that was taken in; a photo that was given by itself has none."""
    return source.partition("/")[2] or source


class _Table:
    """Parquet file that is written row by row, a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "_Table":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []
