"""Labels of other tools in one form: photos, their masks, and the annotations that cannot be taken."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from storage.rle import Rle


@dataclass(frozen=True, kw_only=True)
class LabelledMask:
    """One mask as a file states it."""

    what: str
    """Name of the mask in its file, for people, such as `annotation 17`."""
    rle: Rle
    category: str = ""
    """Name of the mask's class; empty where the file names none."""
    predicted_iou: float = math.nan
    """A model's own estimate of the mask's IoU, in [0, 1]; NaN for none."""
    stability_score: float = math.nan
    """IoU of the mask cut at a higher and at a lower threshold, in [0, 1]; NaN for none."""
    point_xy: tuple[float, float] = (math.nan, math.nan)
    """Point (x, y) that a model was prompted with, in pixels; NaN for none."""
    crop_xyxy: tuple[int, int, int, int] | None = None
    """Half-open box of the crop in which the mask was found; None for the whole image."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Annotation, or a photo with all its annotations, that cannot be taken."""

    what: str
    """Name in the file, such as `annotation 17` or `photo a.jpg`."""
    reason: str
    """Short code, such as crowd, empty or photo_missing."""
    detail: str
    """What was found, and what to do, in one line."""
    masks: int = 1
    """Number of annotations that are left out with it."""

    def to_json(self) -> dict[str, object]:
        """Return the entry as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ReadMasks:
    """Masks of one photo, and its annotations that are none."""

    masks: tuple[LabelledMask, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PhotoLabels:
    """Labels of one photo."""

    name: str
    """Name of the photo in the file, perhaps with folders."""
    size_hw: tuple[int, int] | None
    """Height and width that the file states, in pixels; None where the format states none."""
    num_masks: int
    """Number of annotations."""
    read: Callable[[int, int], ReadMasks]
    """Function that reads the masks, for an image of the given height and width."""
    license: str = ""
    """Licence of the photo; empty where the file names none."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of one file or folder of another tool."""

    form: str
    """Name of the format: coco, sa1b, yolo, cvat or label-studio."""
    file: str
    """Name of the file or folder, without the folders that it lies in."""
    sha256: str
    """SHA-256 of the bytes of all its label files, in hex."""
    folder: Path
    """Folder that the photos' names are relative to, unless another one is given."""
    photos: tuple[PhotoLabels, ...]
    left_out: tuple[LeftOut, ...] = ()
    """Annotations that belong to no photo of the file."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Choices that changed what was read, as JSON values; the plan of an import records them."""


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """Compute the SHA-256 of several files and their names below a folder, in hex."""
    total = hashlib.sha256()
    for path in paths:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()
