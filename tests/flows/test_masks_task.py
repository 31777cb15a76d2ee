from dataclasses import replace
from pathlib import Path

import pytest

from engine.model.card import ModelCard
from engine.model.config import SamConfig, VitConfig
from engine.model.sam import build_sam
from engine.model.weights import load_model, save_model
from flows.config import RunConfig
from flows.fully_automatic import _planned
from stages.fully_automatic import expected_memory_bytes
from stages.pool import PoolConfig
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
def weights(tmp_path: Path) -> Path:
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
    save_model(tmp_path / "tiny.safetensors", build_sam(TINY), card)
    return tmp_path / "tiny.safetensors"


def test_a_workers_memory_is_that_of_its_model_unless_given(tmp_path: Path, weights: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    config = RunConfig(dataset=dataset.uri, model=str(weights))
    plans, pool = _planned(dataset, config)
    assert plans == []
    assert pool == replace(config.pool, worker_memory_bytes=expected_memory_bytes(load_model(weights)))
    given = replace(config, pool=PoolConfig(worker_memory_bytes=5, threads=2))
    assert _planned(dataset, given)[1] == given.pool
