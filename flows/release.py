"""The flow of a release: choose what of a snapshot leaves, and write it to a folder.

choose -> note in the dataset -> write
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.orchestration import flow, task
from flows.progress import Counts, reporter
from stages.release.choose import Choice
from stages.release.choose import choose as choose_images
from stages.release.config import ReleaseConfig
from stages.release.release import ReleaseProgress, write_release
from storage.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class ReleaseResult:
    """Result of `gigamask release`."""

    release_id: str
    snapshot: str
    images: int
    masks: int
    tars: int
    left_out: tuple[str, ...]
    """Images and masks of the snapshot that did not leave, with the reason, one line each."""
    deidentified: bool
    """Whether every image was searched for faces, and for licence plates by a detector or by people, and what was found
    made unrecognisable.
    """
    nbytes: int
    """Size of all files in bytes."""
    out: str


@flow("release")
def release(dataset: str, snapshot: str, out: str, config: ReleaseConfig) -> ReleaseResult:
    """Write a release, or continue one that was interrupted.

    Raises:
        ValueError: Nothing may leave, or the folder holds something else.
        NotFound: There is no such snapshot.
        StoreError: The dataset cannot be written to.
    """
    choice = choose(dataset, snapshot, config)
    record(dataset, choice, out, config)
    return _result(write(dataset, choice, out, config), out)


@task("choose")
def choose(dataset: str, snapshot: str, config: ReleaseConfig) -> Choice:
    """Choose the images and masks that leave."""
    return choose_images(Dataset.open(dataset), snapshot, config)


@task("record")
def record(dataset: str, choice: Choice, out: str, config: ReleaseConfig) -> None:
    """Note in the dataset which images the release will hold, so that an erasure can name it."""
    Dataset.open(dataset).releases.record(
        choice.release_id(config),
        choice.image_ids,
        snapshot_id=choice.snapshot.snapshot_id,
        title=config.title,
        masks=choice.masks,
        out=str(Path(out).absolute()),
    )


@task("write")
def write(dataset: str, choice: Choice, out: str, config: ReleaseConfig) -> dict[str, Any]:
    """Write the tars, the lists and the documents; return the manifest."""
    with reporter("release") as progress:
        return write_release(Dataset.open(dataset), choice, Path(out), config, lambda now: progress(_counts(now)))


def _counts(now: ReleaseProgress) -> Counts:
    return Counts(done=now.images, total=now.images_total, new=now.new_images, masks=now.masks, new_masks=now.new_masks)


def _result(manifest: dict[str, Any], out: str) -> ReleaseResult:
    left_out = manifest["left_out"]
    return ReleaseResult(
        release_id=manifest["release_id"],
        snapshot=manifest["snapshot"]["snapshot_id"],
        images=manifest["images"],
        masks=manifest["masks"],
        tars=sum(file["path"].endswith(".tar") for file in manifest["files"]),
        left_out=tuple(
            f"{count} {what}: {reason}" for what in left_out for reason, count in left_out[what].items() if count
        ),
        deidentified=manifest["deidentified"],
        nbytes=sum(file["nbytes"] for file in manifest["files"]),
        out=out,
    )
