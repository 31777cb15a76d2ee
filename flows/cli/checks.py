"""Refusals of wrong use: quick checks that need no torch, Ray or Prefect, made before any of them is imported."""

from collections.abc import Sequence
from pathlib import Path


def check_photos(paths: Sequence[Path]) -> None:
    """Check that every path is there.

    Raises:
        ValueError: names the first one that is not.
    """
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder; expected photos or folders of photos")


def check_model(name_or_path: str) -> None:
    """Check that a model's weights file is there; the file is not read.

    Raises:
        ValueError: names the models there are.
    """
    from engine.model.find import find_weights

    find_weights(name_or_path)


def check_dataset(uri: str) -> None:
    """Check that a dataset can be opened.

    Raises:
        StoreError: there is no dataset, or the store cannot be read.
    """
    from storage.dataset import Dataset

    Dataset.open(uri)


def check_dataset_place(uri: str) -> None:
    """Check that there is a dataset, or that nothing stands in its place; nothing is written.

    Raises:
        StoreError: the place holds something else, or the store cannot be read.
    """
    from storage.dataset import Dataset
    from storage.errors import NotFound

    try:
        Dataset.open(uri)
    except NotFound:
        return  # the run creates it


def check_training(dataset_uri: str, snapshot_id: str, parent: str) -> None:
    """Check that the dataset, the snapshot and the model to start from are there.

    Raises:
        ValueError: no such model; names the models there are, the dataset's included.
        StoreError: no such dataset or snapshot.
    """
    from storage.dataset import Dataset
    from storage.tables.snapshots import read_snapshot

    dataset = Dataset.open(dataset_uri)
    read_snapshot(dataset.store, snapshot_id)
    versions = dataset.models.ids()
    if parent in versions:
        return
    try:
        check_model(parent)
    except ValueError as error:
        raise ValueError(f"{error}; models of {dataset.uri}: {', '.join(versions) or 'none'}") from error
