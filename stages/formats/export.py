"""Export of a snapshot: its images and masks as files of another tool, in one new folder.

snapshot -> choice of what leaves -> image by image: picture and masks -> the format's files -> the folder in its place

Masks that were withdrawn since the snapshot and images that were erased do not leave, as in a release. The folder is
written under another name, which begins with a dot, and renamed in the end: a folder that is there is whole.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.formats.exported import Exported, Loss
from stages.release.choose import choose
from stages.release.config import ReleaseConfig
from stages.training.snapshot_source import Sample
from storage.dataset import Dataset

Writer = Callable[[Path, Exported], Loss | None]
"""Function that writes the files of a format into a folder, and says what the format lost."""

_BUSY = "another process writes it; wait for it, or give another folder"


class TooLossy(ValueError):
    """Refusal to leave an export whose masks are no longer those of the dataset."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Result of an export."""

    form: str
    """Name of the format."""
    snapshot: str
    """Id of the snapshot."""
    images: int
    masks: int
    images_left_out: Mapping[str, int]
    """Number of images of the snapshot that were not exported, by reason."""
    masks_left_out: Mapping[str, int]
    """Number of masks of the snapshot that were not exported, by reason."""
    loss: Loss | None
    """What the format lost; None for one that keeps every pixel."""
    out: str
    seconds: float
    """Duration of this call in seconds."""


def export_snapshot(
    dataset: Dataset,
    snapshot: str,
    out: Path,
    form: str,
    write: Writer,
    *,
    min_iou: float = 0.0,
    on_image: Callable[[int, int, int], None] = lambda done, total, masks: None,
) -> ExportReport:
    """Export a snapshot.

    Args:
        dataset: The dataset.
        snapshot: Id of the snapshot.
        out: Folder to write; it must not hold anything.
        form: Name of the format.
        write: Writer of the format.
        min_iou: Least IoU, 0 to 1, that each mask must have with itself when it is read again; only for formats that
            lose something.
        on_image: Function that is called after each image, with the numbers of images done, of all images, and of
            masks done.

    Raises:
        NotFound: There is no such snapshot.
        TooLossy: A mask that is read again has a lower IoU.
        ValueError: No image has a mask, or the folder holds something.
    """
    began = time.perf_counter()
    config = ReleaseConfig(not_deidentified=True, allow_unlicensed=True)
    choice = choose(dataset, snapshot, config, any_side=True)  # pictures leave as they are stored, not as JPEG
    with _new_folder(out) as folder:
        exported = Exported(dataset, choice, on_sample=_save_picture(folder, on_image, len(choice)))
        loss = write(folder, exported)
        if loss is not None and loss.min_iou < min_iou:
            raise TooLossy(
                f"{form}: the mask {loss.worst}, read again, has an IoU of {loss.min_iou:.3f} with itself, below "
                f"{min_iou:g}; nothing was written. Export to coco, which keeps every pixel, or lower --min-iou"
            )
    return ExportReport(
        form=form,
        snapshot=snapshot,
        images=len(choice),
        masks=choice.masks,
        images_left_out={reason: images for reason, images in choice.left_out.items() if images},
        masks_left_out={reason: masks for reason, masks in choice.masks_left_out.items() if masks},
        loss=loss,
        out=str(out),
        seconds=time.perf_counter() - began,
    )


def _save_picture(folder: Path, on_image: Callable[[int, int, int], None], total: int) -> Callable[[Sample], None]:
    """Make the function that writes the picture of each image that is read."""
    (folder / "images").mkdir()
    images = masks = 0

    def save(sample: Sample) -> None:
        nonlocal images, masks
        (folder / "images" / f"{sample.image.key}.{sample.image.format}").write_bytes(sample.data)
        images, masks = images + 1, masks + len(sample.masks)
        on_image(images, total, masks)

    return save


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write to, and rename it to `out` unless an error comes.

    Raises:
        ValueError: `out` holds something or cannot be replaced, or another process writes it.
    """
    out = out.resolve()  # the folder that a link names, since a folder cannot take the place of a link
    _check_empty(out)
    if out == Path.cwd() or out.is_mount():
        raise ValueError(f"{out}: the current folder and a mounted disk cannot be replaced; give a new folder in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.unfinished"
    with (out.parent / f".{out.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{out}: {_BUSY}") from error
        if not _is_still_at(lock.fileno(), Path(lock.name)):  # its holder ended, and took it away, in between
            raise ValueError(f"{out}: {_BUSY}")
        try:
            _check_empty(out)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
            os.replace(folder, out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: it is there already and not empty; give a new folder")


def _is_still_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one that the path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
