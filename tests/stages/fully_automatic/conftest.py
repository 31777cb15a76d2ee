"""What the tests of the fully automatic stage share: a dataset with images, and a worker for it."""

from pathlib import Path

import pytest

from engine.model.weights import Model, load_model
from stages.fully_automatic.worker import ShardWorker
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import ingest_photos
from storage.dataset import Dataset
from tests.stages.masking import CONFIG


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return load_model(tiny_model)


@pytest.fixture
def photographed(dataset: Dataset, photo_folder: Path) -> Dataset:
    """A dataset of eight images in two shards."""
    ingest_photos([photo_folder], dataset, IngestConfig(images_per_shard=5))
    return dataset


@pytest.fixture
def worker(tiny_model: Path, photographed: Dataset) -> ShardWorker:
    return ShardWorker(tiny_model, CONFIG, photographed.uri)
