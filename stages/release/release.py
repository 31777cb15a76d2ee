"""A release: the images and masks of a snapshot in the form of SA-1B, with all that others need to use them.

snapshot -> choice of what leaves -> a tar at a time: pictures, JSON files, rows -> lists and documents -> manifest

The same snapshot and settings give the same bytes, from the same versions of the libraries that the manifest names,
unless masks were withdrawn or images erased in between. A release that was interrupted continues with the tar that it
was at; nothing but the last file, release.json, makes a folder a release.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.release import lists
from stages.release.choose import FORMAT, Choice, choose
from stages.release.config import ReleaseConfig
from stages.release.documents.all import make_documents
from stages.release.facts import Facts, read_facts
from stages.release.folder import MANIFEST, File, ReleaseFolder
from stages.release.pictures import encoder
from stages.release.tars import TarWriter
from stages.release.viewer.viewer import VIEWER, make_viewer
from stages.training.snapshot_source import SnapshotImages
from storage.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class ReleaseProgress:
    """Progress of a release."""

    images: int
    """Number of images that are written; an interruption costs those of the tar that it was at."""
    images_total: int
    masks: int
    new_images: int
    """Number of images that this run has written."""
    new_masks: int


def write_release(
    dataset: Dataset,
    choice: Choice,
    out: Path,
    config: ReleaseConfig,
    on_progress: Callable[[ReleaseProgress], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a release to a folder, or continue one that was interrupted; return its manifest.

    A release that is there as a whole is left as it is.

    Raises:
        Corrupt: A stored image or mask is not what its row says.
        ValueError: The folder holds something else, or masks were withdrawn or images erased during the writing.
    """
    folder = ReleaseFolder(out, choice.release_id(config))
    with folder.writing():
        if folder.is_finished:
            folder.clear()
        else:
            parts = _write_tars(TarWriter(folder, _images(dataset, choice), choice, config), choice, on_progress)
            made = _write_documents(folder, choice, config, read_facts(dataset, choice.snapshot), parts)
            _check_unchanged(dataset, choice, config, folder)
            folder.finish(made)
    manifest: dict[str, Any] = json.loads((out / MANIFEST).read_bytes())
    return manifest


def _check_unchanged(dataset: Dataset, choice: Choice, config: ReleaseConfig, folder: ReleaseFolder) -> None:
    """Choose again after everything was written, because masks and images can be taken back meanwhile."""
    if choose(dataset, choice.snapshot.snapshot_id, config).release_id(config) != folder.release_id:
        raise ValueError(
            f"{folder.root}: masks were withdrawn or images erased while the release was written; delete the folder "
            "and make the release again"
        )


def _images(dataset: Dataset, choice: Choice) -> SnapshotImages:
    return SnapshotImages(dataset, choice.snapshot.snapshot_id, shards_at_hand=1)


def _write_tars(
    writer: TarWriter, choice: Choice, on_progress: Callable[[ReleaseProgress], None]
) -> list[dict[str, Any]]:
    now = ReleaseProgress(images=0, images_total=len(choice), masks=0, new_images=0, new_masks=0)

    def add(images: int, masks: int, *, new: bool) -> None:
        nonlocal now
        now = replace(
            now,
            images=now.images + images,
            masks=now.masks + masks,
            new_images=now.new_images + new * images,
            new_masks=now.new_masks + new * masks,
        )
        on_progress(now)

    parts = []
    for number in range(writer.count):
        known = writer.finished(number)
        if known is not None:
            add(known["images"], known["masks"], new=False)
        parts.append(known or writer.write(number, lambda masks: add(1, masks, new=True)))
    return parts


def _write_documents(
    folder: ReleaseFolder, choice: Choice, config: ReleaseConfig, facts: Facts, parts: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write the lists and the documents; return the manifest, which is still to be written."""
    about = _about(folder, choice, config)
    manifest = {**about, "counts": _sum_counts(parts), "facts": facts.to_json()}
    files = [File(**file) for part in parts for file in part["files"]]
    files += lists.write_lists(folder, manifest["counts"]["licenses"], with_coco=config.with_coco)
    for path, text in make_documents(manifest, files).items():
        files.append(folder.write_text(path, text))
    files.append(folder.write_text(VIEWER, make_viewer(folder.root, manifest)))
    files.append(lists.write_checksums(folder, files))
    return {**manifest, "files": [file.to_json() for file in sorted(files, key=lambda file: file.path)]}


def _about(folder: ReleaseFolder, choice: Choice, config: ReleaseConfig) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "release_id": folder.release_id,
        "snapshot": {
            "snapshot_id": choice.snapshot.snapshot_id,
            "records_sha256": choice.snapshot.records_sha256,
            "created_at": choice.snapshot.created_at.isoformat(),
        },
        "made_with": {"gigamask": version("gigamask"), "jpeg": encoder(), "pyarrow": pa.__version__},
        "settings": config.settings(),
        "deidentified": choice.deidentification.is_complete(config),
        "deidentification": choice.deidentification.to_json(),
        "images": len(choice),
        "masks": choice.masks,
        "left_out": {"images": dict(choice.left_out), "masks": dict(choice.masks_left_out)},
    }


def _sum_counts(parts: list[dict[str, Any]]) -> dict[str, Mapping[str, int]]:
    sums = dict[str, Counter[str]]()
    for part in parts:
        for name, counts in part["counts"].items():
            sums.setdefault(name, Counter()).update(counts)
    return {name: dict(sorted(counts.items())) for name, counts in sums.items()}
