"""Labelled images: images with ground-truth masks, read from a folder.

The folder holds `<domain>/<stem>.jpg` (or png, webp, tif) beside `<domain>/<stem>.json`. Images and JSON files may also
lie in the folder itself, which is then one domain with the folder's name. The JSON is that of SA-1B (`image`, and
`annotations` with COCO run lengths). An annotation may name its `annotator`; without a name, the annotator is 0. Pixels
are read as stored: EXIF orientation is ignored, as in the data sets that use this form. Shape letters: H height, W
width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine import images
from storage import rle
from storage.rle import Rle

Frequency = Literal["rare", "common", "frequent"]
"""LVIS's group of a category, by the number of training images that have it: up to 10, up to 100, or more."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
"""Suffixes of the files that are read as images."""


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """One image with masks, kept separately for each annotator."""

    domain: str
    stem: str
    origin: str
    """Place where the image lies, for messages."""
    read_bytes: Callable[[], bytes]
    """Function that reads the encoded image; it raises OSError where it cannot."""
    image_id: int
    """Id of the image in its JSON. By custom, images with even ids may train and calibrate, and images with odd ids
    evaluate."""
    height: int
    width: int
    masks_by_annotator: Mapping[int, tuple[Rle, ...]]
    """Masks by annotator. Each annotator describes the same image, so that the masks of all together are not one ground
    truth."""
    frequencies: tuple[Frequency, ...] = ()
    """How frequent the category of each mask of annotator 0 is in LVIS; empty for other labels."""

    @property
    def num_masks(self) -> int:
        """Number of masks of all annotators together."""
        return sum(len(masks) for masks in self.masks_by_annotator.values())


def load_folder(folder: str | Path) -> list[LabelledImage]:
    """List every labelled image of a folder, sorted by domain and stem; pixels are not read yet.

    An image without a JSON file has no labels and is not in the list; `unlabelled_images` lists such images. A JSON
    file without annotations gives an image without masks.

    Raises:
        ValueError: The folder does not exist or has no labelled image. A JSON file is broken, has another form than
            SA-1B's or has no image beside it. Run lengths do not fit their image. The message names the file.
    """
    labelled = [_load_labels(path) for path in _files(folder, (".json",))]
    if not labelled:
        raise ValueError(
            f"{folder}: got no JSON there or one level below, expected <domain>/<stem>.jpg beside <domain>/<stem>.json"
        )
    return labelled


def unlabelled_images(folder: str | Path) -> list[Path]:
    """List the images of a folder without a JSON file beside them; `load_folder` leaves these images out."""
    return [path for path in _files(folder, IMAGE_SUFFIXES) if not path.with_suffix(".json").exists()]


def read_pixels(image: LabelledImage) -> np.ndarray:
    """Read an image's RGB pixels, uint8 [H, W, 3].

    Raises:
        ValueError: The image cannot be read or decoded, or the decoded size differs from the size in `image`.
    """
    try:
        image_HW3 = images.decode(image.read_bytes())
    except (ValueError, OSError) as error:
        raise ValueError(f"{image.origin}: {error}") from error
    if image_HW3.shape[:2] != (image.height, image.width):
        raise ValueError(
            f"{image.origin}: got an image of {image_HW3.shape[1]}x{image_HW3.shape[0]}, but its JSON says "
            f"{image.width}x{image.height}; the masks belong to another version of the image"
        )
    return image_HW3


def _files(folder: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List the files with one of the suffixes, in the folder and one level below, sorted and without hidden files.

    Raises:
        ValueError: The folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{folder}: got no folder of that name, expected one with images and JSON files")
    found = [path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.suffix.lower() in suffixes]
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _load_labels(path: Path) -> LabelledImage:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        header, annotations = content["image"], content["annotations"]
        height, width, image_id = int(header["height"]), int(header["width"]), int(header["image_id"])
        masks_by_annotator: dict[int, list[Rle]] = {}
        for number, annotation in enumerate(annotations):
            mask = _mask_of(annotation, height, width, f"annotation {number}")
            masks_by_annotator.setdefault(int(annotation.get("annotator", 0)), []).append(mask)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: got broken JSON ({error}), expected an SA-1B annotation file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: got bytes that are not UTF-8, expected an SA-1B annotation file") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: got JSON without the field {error}, expected {{"image": {{"image_id", "height", "width"}}, '
            '"annotations": [{"segmentation": {"size", "counts"}}]}'
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    image_path = _image_beside(path)
    return LabelledImage(
        domain=path.parent.name or path.parent.resolve().name,
        stem=path.stem,
        origin=str(image_path),
        read_bytes=image_path.read_bytes,
        image_id=image_id,
        height=height,
        width=width,
        masks_by_annotator={annotator: tuple(masks) for annotator, masks in sorted(masks_by_annotator.items())},
    )


def _mask_of(annotation: Mapping[str, Any], height: int, width: int, where: str) -> Rle:
    size, counts = annotation["segmentation"]["size"], annotation["segmentation"]["counts"]
    if list(size) != [height, width]:
        raise ValueError(
            f"{where}: got a mask of size {size}, expected [{height}, {width}] (height, width) as its image"
        )
    if not isinstance(counts, str):
        raise ValueError(f"{where}: got counts of type {type(counts).__name__}, expected a COCO run-length string")
    try:
        return rle.from_coco(counts, height=height, width=width)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _image_beside(json_path: Path) -> Path:
    for suffix in IMAGE_SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            if (image := json_path.with_suffix(spelled)).is_file():
                return image
    raise ValueError(
        f"{json_path}: got no image beside it, expected {json_path.stem} with one of {', '.join(IMAGE_SUFFIXES)}"
    )
