"""Ground truth of published benchmarks in the folders that their authors publish: BSDS500, DAVIS and ADE20K.

folder -> files of the benchmark -> label maps -> one mask for each label -> LabelledImage, as an evaluation takes it
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from engine.labelled import IMAGE_SUFFIXES, LabelledImage
from storage import rle
from storage.rle import Rle

VOID = 255
"""Label of pixels that belong to no object in a palette image of DAVIS; the object itself in a black and white one."""
SEGMENTS = "_seg.png"
"""End of the names of ADE20K's label images of objects."""


@dataclass(frozen=True, kw_only=True)
class BsdsSource:
    """Human segmentations of BSDS500: a folder of its MAT files, such as `BSDS500/data/groundTruth/test`.

    The images are in `images`, beside `groundTruth`. Each person's segments divide the image.
    """

    folder: Path

    def images(self) -> Sequence[LabelledImage]:
        """List the images, each with the segments of every person.

        Raises:
            ValueError: An image is missing, or a MAT file is broken or has no segmentations.
        """
        return [self._image(path) for path in sorted(self.folder.glob("*.mat"))]

    def count_unlabelled(self) -> int:
        """Count the images without a MAT file."""
        return sum(not (self.folder / f"{path.stem}.mat").is_file() for path in _pictures(self.pictures_folder))

    @property
    def pictures_folder(self) -> Path:
        """Folder of the images."""
        folder = self.folder.absolute()  # of a relative path such as `test`, the folders above it
        return folder.parent.parent / "images" / folder.name

    def _image(self, path: Path) -> LabelledImage:
        segmentations = _read_segmentations(path)
        return _labelled(
            _picture(self.pictures_folder / path.stem),
            f"bsds500_{self.pictures_folder.name}",
            path.stem,
            int(path.stem) if path.stem.isdecimal() else zlib.crc32(path.stem.encode()),
            {number: _masks(labels_HW, background=()) for number, labels_HW in enumerate(segmentations)},
            (segmentations[0].shape[0], segmentations[0].shape[1]),
        )


@dataclass(frozen=True, kw_only=True)
class DavisSource:
    """Frames of DAVIS 2016 or 2017: a folder with `JPEGImages/480p/SEQUENCE` and `Annotations/480p/SEQUENCE`.

    A palette image has a label for each object; a black and white one has a single object. All frames of a sequence
    have the same image id, so that even and odd ids never share a sequence.
    """

    folder: Path

    def images(self) -> Sequence[LabelledImage]:
        """List the frames that have an annotation, by sequence and number.

        Raises:
            ValueError: There is no annotation, a frame is missing, or a file is broken.
        """
        files = sorted((self.folder / "Annotations").rglob("*.png"))
        if not files:
            raise ValueError(f"{self.folder / 'Annotations'}: got no PNG, expected the annotations of DAVIS")
        return [self._image(path) for path in files]

    def count_unlabelled(self) -> int:
        """Count the frames without an annotation."""
        root = self.folder / "JPEGImages"
        labelled = self.folder / "Annotations"
        return sum(
            not (labelled / path.relative_to(root)).with_suffix(".png").is_file() for path in root.rglob("*.jpg")
        )

    def _image(self, path: Path) -> LabelledImage:
        image = _open(path)
        labels_HW = np.asarray(image)
        if labels_HW.ndim != 2:
            raise ValueError(f"{path}: got an image of mode {image.mode}, expected a palette or black and white")
        background = (0, VOID) if image.mode == "P" else (0,)
        relative = path.relative_to(self.folder / "Annotations").with_suffix("")
        return _labelled(
            _picture(self.folder / "JPEGImages" / relative),
            self.folder.resolve().name,
            "_".join(relative.parts[-2:]),
            zlib.crc32(relative.parent.name.encode()),
            {0: _masks(labels_HW, background=background)},
            (labels_HW.shape[0], labels_HW.shape[1]),
        )


@dataclass(frozen=True, kw_only=True)
class Ade20kSource:
    """Objects and parts of ADE20K, the full dataset: `NAME.jpg` beside `NAME_seg.png` and `NAME_parts_1.png`, ...

    Blue numbers the instances of a label image; red and green name the class, which is not read.
    """

    folder: Path

    def images(self) -> Sequence[LabelledImage]:
        """List the images with the masks of their objects, then of the parts, level by level.

        Raises:
            ValueError: An image is missing, or a label image is broken or has another size than the objects'.
        """
        return [self._image(path) for path in sorted(self.folder.rglob(f"*{SEGMENTS}"))]

    def count_unlabelled(self) -> int:
        """Count the JPEGs without a label image."""
        return sum(not path.with_name(path.stem + SEGMENTS).is_file() for path in self.folder.rglob("*.jpg"))

    def _image(self, path: Path) -> LabelledImage:
        name = path.name.removesuffix(SEGMENTS)
        parts = sorted(path.parent.glob(f"{name}_parts_*.png"), key=lambda each: int(each.stem.rsplit("_", 1)[1]))
        masks: list[Rle] = []
        size: tuple[int, int] | None = None
        for file in (path, *parts):
            instances_HW = _instances(file)
            size = size or (instances_HW.shape[0], instances_HW.shape[1])
            if instances_HW.shape != size:
                raise ValueError(f"{file}: got a label image of {instances_HW.shape}, expected {size} (height, width)")
            masks += _masks(instances_HW, background=(0,))
        assert size is not None
        digits = re.findall(r"\d+", name)
        number = int(digits[-1]) if digits else zlib.crc32(name.encode())
        return _labelled(
            _picture(path.with_name(name)), self.folder.resolve().name, name, number, {0: tuple(masks)}, size
        )


BenchmarkSource = BsdsSource | DavisSource | Ade20kSource


def find_benchmark(folder: Path) -> BenchmarkSource | None:
    """Recognise the folder of a benchmark by its files; None for any other folder.

    Folders below are looked through until the first that holds labels: of ADE20K, or of SA-1B, which is no benchmark.
    """
    files = _file_names(folder)
    if _has_sa1b_labels(files):
        return None
    if (folder / "JPEGImages").is_dir() and (folder / "Annotations").is_dir():
        return DavisSource(folder=folder)
    bsds = BsdsSource(folder=folder)
    if bsds.pictures_folder.is_dir() and any(name.endswith(".mat") for name in files):
        return bsds
    return Ade20kSource(folder=folder) if _is_ade20k(folder) else None


def _file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()


def _is_ade20k(folder: Path) -> bool:
    """Tell whether the first labels in a folder or below it are ADE20K's."""
    for _, below, names in os.walk(folder):
        below.sort()
        files = set(names)
        if _has_sa1b_labels(files):
            return False
        if any(name.endswith(SEGMENTS) and f"{name.removesuffix(SEGMENTS)}.jpg" in files for name in files):
            return True
    return False


def _has_sa1b_labels(files: Set[str]) -> bool:
    """Tell whether a picture has a JSON file beside it, but no label image as in ADE20K, which has both."""
    stems = {name.removesuffix(".json") for name in files if name.endswith(".json")}
    return any(
        f"{stem}{suffix}" in files and f"{stem}{SEGMENTS}" not in files for stem in stems for suffix in IMAGE_SUFFIXES
    )


def _read_segmentations(path: Path) -> list[np.ndarray]:
    """Read the label map of each person from a MAT file of BSDS500, int [H, W] each."""
    from scipy.io import loadmat

    try:
        cells = loadmat(path)["groundTruth"][0]
        maps = [np.asarray(cell[0, 0]["Segmentation"]).astype(np.int64) for cell in cells]
    except Exception as error:  # a damaged MAT file may raise anything at all
        raise ValueError(f"{path}: {error}; expected human segmentations of BSDS500") from error
    if not maps or any(labels_HW.shape != maps[0].shape or labels_HW.ndim != 2 for labels_HW in maps):
        raise ValueError(f"{path}: got label maps of {[each.shape for each in maps]}, expected some of one size")
    return maps


def _instances(path: Path) -> np.ndarray:
    image = _open(path)
    if image.mode not in ("RGB", "RGBA"):
        raise ValueError(f"{path}: got an image of mode {image.mode}, expected ADE20K's labels in RGB")
    return np.asarray(image)[:, :, 2]


def _open(path: Path) -> Image.Image:
    """Read an image as stored, so that a palette image keeps its labels."""
    try:
        image = Image.open(path)
        image.load()
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{path}: {error}; expected a PNG of labels") from error
    return image


def _masks(labels_HW: np.ndarray, *, background: Sequence[int]) -> tuple[Rle, ...]:
    return tuple(rle.encode(labels_HW == label) for label in np.unique(labels_HW).tolist() if label not in background)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _picture(without_suffix: Path) -> Path:
    """Find the picture of this path, with any of the suffixes of images."""
    for suffix in IMAGE_SUFFIXES:
        if (path := without_suffix.with_name(without_suffix.name + suffix)).is_file():
            return path
    raise ValueError(f"{without_suffix}: got no such image, but labels of it; expected it with .jpg or .png")


def _labelled(
    picture: Path,
    domain: str,
    stem: str,
    image_id: int,
    masks_by_annotator: Mapping[int, tuple[Rle, ...]],
    size_hw: tuple[int, int],
) -> LabelledImage:
    return LabelledImage(
        domain=domain,
        stem=stem,
        origin=str(picture),
        read_bytes=picture.read_bytes,
        image_id=image_id,
        height=size_hw[0],
        width=size_hw[1],
        masks_by_annotator=masks_by_annotator,
    )
