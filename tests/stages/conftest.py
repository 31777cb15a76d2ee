"""What the tests of the stages share: a dataset, a tiny network with random weights, photographs drawn at random."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from storage.dataset import Dataset
from tests.tiny_network import save_tiny_model


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.create(tmp_path / "dataset")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that masks a photograph in milliseconds; its thresholds let every mask pass."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def pictures() -> SimpleNamespace:
    """`draw(seed, height=, width=)` makes a picture, `encode(picture, kind, **options)` the bytes of its file."""
    return SimpleNamespace(draw=picture, encode=encoded)


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Eight photographs of 64 x 96 px."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.png").write_bytes(encoded(picture(number, height=64, width=96), "PNG"))
    return folder


def picture(seed: int, *, height: int = 60, width: int = 80) -> Image.Image:
    """A smooth picture in colour, another for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
