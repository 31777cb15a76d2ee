"""What the tests of the stages share: a dataset, a tiny network with random weights, photographs drawn at random."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.model.card import ModelCard
from engine.model.config import SamConfig, VitConfig
from engine.model.sam import build_sam
from engine.model.weights import save_model
from storage.dataset import Dataset

TINY = SamConfig(
    image_encoder=VitConfig(width=16, depth=1, heads=2, global_blocks=(0,), window_side=4),
    input_side=64,
    embedding_stride=16,
    width=16,
    mask_prompt_channels=4,
    decoder_heads=2,
    decoder_mlp_width=16,
    iou_head_width=16,
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.create(tmp_path / "dataset")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that masks a photograph in milliseconds; its thresholds let every mask pass."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    torch.manual_seed(0)
    card = ModelCard(
        name="tiny",
        config=TINY,
        predicted_iou_threshold=0.0,
        stability_threshold=0.0,
        parent="",
        training={},
        metrics={},
        license="CC0-1.0",
        notes="random weights",
    )
    save_model(path, build_sam(TINY), card)
    return path


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
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()
