"""What an export hands to the writer of a format: images with their masks, one after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from stages.release.choose import Choice
from stages.training.snapshot_source import Sample, SnapshotImages
from storage.dataset import Dataset
from storage.errors import Corrupt, Erased
from storage.records import ImageRecord, image_key

CATEGORY = "object"
"""Name of the one class that masks have in formats that need one."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a format lost: the IoU of each mask with the one that is read from the exported file."""

    min_iou: float
    mean_iou: float
    changed: int
    """Number of masks of which any pixel changed."""
    worst: str
    """Name of the mask with the least IoU: key of the image and place among its masks."""
    mean_iou_opencv: float
    """Mean IoU where OpenCV fills the polygons, as Ultralytics does: it adds half a pixel on every side."""


class Exported:
    """Images and masks of a snapshot that leave, in their order."""

    def __init__(self, dataset: Dataset, choice: Choice, on_sample: Callable[[Sample], None]) -> None:
        self._dataset, self._choice, self._on_sample = dataset, choice, on_sample

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._choice)

    @property
    def snapshot_id(self) -> str:
        """Id of the snapshot."""
        return self._choice.snapshot.snapshot_id

    @cached_property
    def images(self) -> list[ImageRecord]:
        """Records of the images."""
        columns = ", ".join(ImageRecord.__dataclass_fields__)
        sql = f"SELECT {columns} FROM images ORDER BY plan, shard, image_id"
        rows = self._dataset.query(sql, self.snapshot_id).take(self._choice.places)
        return [ImageRecord.from_row(row) for row in rows.to_pylist()]

    def samples(self) -> Iterator[Sample]:
        """Read image after image with its masks; the export writes each picture on the way.

        Raises:
            Corrupt: A stored image or mask is not what its row says.
            Erased: An image was erased meanwhile.
        """
        images = SnapshotImages(self._dataset, self.snapshot_id, shards_at_hand=1)
        choice = self._choice
        for place, image_id, count in zip(choice.places, choice.image_ids, choice.mask_counts, strict=True):
            sample = images.read(int(place))
            if sample is None:
                raise Erased(f"image {image_key(int(image_id))} was erased while it was to be exported; export again")
            masks = tuple(mask for mask in sample.masks if (int(image_id), mask.mask_id) not in choice.withdrawn)
            if sample.image.image_id != image_id or len(masks) != count:
                raise Corrupt(
                    f"image {image_key(int(image_id))}: {len(masks)} masks of image {sample.image.key} were read, "
                    f"{count} expected; run `gigamask verify`"
                )
            sample = replace(sample, masks=masks)
            self._on_sample(sample)
            yield sample
