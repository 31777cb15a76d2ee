"""Checks of a command's arguments. They need no torch, Ray or Prefect, and run before these are imported."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.ingest.config import PrivacyConfig

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
"""Suffixes of files that may hold photos, and are not opened."""


def check_photos(paths: Sequence[Path]) -> None:
    """Check that every given path exists, and that there is a photo.

    Raises:
        ValueError: A path does not exist, is a URL or an archive; the message names the first such path. Or no path
            leads to a photo.
    """
    for path in paths:
        if re.match(r"[a-z][a-z0-9]+:/", str(path)):  # s3://, https://, of which a path keeps one slash
            raise ValueError(f"{path}: photos are read from this machine's folders; copy them here first")
        if path.suffix.lower() in ARCHIVES and path.is_file():
            raise ValueError(f"{path}: got an archive, expected photos or folders of photos; unpack it first")
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder; expected photos or folders of photos")
    from stages.ingest.files import check_any_photo

    check_any_photo(paths)


def check_model(name_or_path: str) -> None:
    """Check that a model's weights file exists; the file is not read.

    Raises:
        ValueError: There is no such model; the message names the known models.
    """
    from engine.model.find import find_weights

    find_weights(name_or_path)


def find_model(name_or_path: str, dataset_uri: str) -> str:
    """Find a model: `promoted`, a version of the dataset, a name or a weights file; return a name or a path.

    A version is copied to this machine; no weights are read.

    Raises:
        ValueError: There is no such model; the message names the known models.
        StoreError: The dataset cannot be read.
    """
    from engine.model.find import find_weights
    from stages.promoted import find_by_address, is_model_elsewhere

    if is_model_elsewhere(name_or_path):
        find_weights(name_or_path)
        return name_or_path
    found = find_by_address(dataset_uri, name_or_path)
    find_weights(found)
    return found


def check_new_model(model: str, dataset_uri: str) -> None:
    """Load a model once that has masked nothing of the dataset, so that damaged weights are refused before the ingest.

    A model that made a shard of the dataset was loaded for it; its file has the same SHA-256, so it is not loaded here.

    Raises:
        ValueError: The weights are damaged or do not fit their card, or this process may use too little memory.
        StoreError: The dataset cannot be read.
    """
    from engine.model.identity import identify_model
    from stages.cluster.limits import check_addresses
    from stages.fully_automatic.plan import names_model
    from storage.dataset import Dataset
    from storage.errors import NotFound

    identity = identify_model(model)
    with suppress(NotFound):
        if names_model(Dataset.open(dataset_uri), identity):
            return
    check_addresses()
    from engine.model.weights import load_model

    load_model(model)


def check_detector(name_or_path: str, dataset: str | None) -> None:
    """Check that a detector's weights file exists; the file is not read.

    With a dataset, whose versions can be named by id, the name is checked where the dataset is opened.

    Raises:
        ValueError: There is no such detector; the message names the known detectors.
    """
    from engine.detector.find import find_detector

    if dataset is None:
        find_detector(name_or_path)


def check_privacy(config: PrivacyConfig) -> None:
    """Check that the detectors of faces and licence plates can be opened.

    Raises:
        ValueError: A file or a package is missing; the message says what to install or to set.
    """
    if config.faces != "none" or config.plates:
        from stages.ingest.privacy_detectors import open_concealer

        open_concealer(config)


def check_dataset(uri: str) -> None:
    """Check that a dataset can be opened.

    Raises:
        StoreError: There is no dataset, or the store cannot be read.
    """
    from storage.dataset import Dataset

    Dataset.open(uri)


def check_dataset_place(uri: str) -> None:
    """Check that the place holds a dataset or is empty; nothing is written.

    Raises:
        StoreError: The place holds something else, or the store cannot be read.
    """
    from storage.dataset import Dataset

    Dataset.check_place(uri)


def workspace_place(dataset: str, workspace: str | None) -> str:
    """Return the file or URL of the workspace.

    Raises:
        ValueError: The dataset is on S3 and no workspace is given.
    """
    if workspace is not None:
        return workspace
    if "://" in dataset:
        raise ValueError(f"--dataset {dataset} is not on this machine; give --workspace FILE or postgresql://...")
    return str(Path(dataset) / "workspace.sqlite")


def check_training(dataset_uri: str, snapshot_id: str, parent: str) -> None:
    """Check that the dataset, the snapshot and the model to start from exist.

    Raises:
        ValueError: There is no such model; the message names the known models, those of the dataset included.
        StoreError: There is no such dataset or snapshot.
    """
    from storage.dataset import Dataset
    from storage.tables.snapshots import read_snapshot

    dataset = Dataset.open(dataset_uri)
    read_snapshot(dataset.store, snapshot_id)
    versions = dataset.models.ids()
    if parent in {"promoted", *versions}:
        return
    try:
        check_model(parent)
    except ValueError as error:
        raise ValueError(f"{error}; models of {dataset.uri}: {', '.join(versions) or 'none'}") from error


def read_text(option: str, path: Path) -> str:
    """Read the text file that an option names.

    Raises:
        ValueError: The file cannot be read, or holds no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{option} {path}: {error.strerror or error}; expected a text file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{option} {path}: got bytes that are no UTF-8 ({error.reason}); save it as UTF-8") from error


def check_prefill(dataset_uri: str, prefill: str) -> None:
    """Check that a round's prefill is a source or an SQL condition on the dataset's masks; nothing is prefilled.

    Raises:
        ValueError: It is neither.
        StoreError: The dataset cannot be read.
    """
    from stages.rounds.prefill_sources import check_condition
    from stages.semi_automatic.prefill_round import DETECTOR, GENERATOR
    from storage.dataset import Dataset

    if prefill not in (DETECTOR, GENERATOR):
        try:
            check_condition(Dataset.open(dataset_uri), prefill)
        except ValueError as error:
            raise ValueError(
                f"--prefill {prefill!r}: expected `{DETECTOR}`, `{GENERATOR}` or an SQL condition on the table masks, "
                f"such as 'predicted_iou > 0.9' ({error})"
            ) from error
