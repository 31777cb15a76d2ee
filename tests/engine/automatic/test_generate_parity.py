"""The same masks as the transformers mask-generation pipeline, with the same weights and thresholds.

The pipeline's departures from the paper are listed in tests/benchmarks/peer_pipeline.py; tests/benchmarks also has this
comparison over a folder of photographs.
"""

import importlib
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from skimage import data

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import generate_masks
from engine.images import resize
from engine.model.card import released_card
from engine.model.config import SamConfig, VitConfig
from engine.model.sam import Sam, build_sam
from engine.model.weights import Model, load_model
from storage.rle import Rle
from tests.paths import ROOT

pytestmark = pytest.mark.slow

CONFIG = SamConfig(
    image_encoder=VitConfig(width=32, depth=2, heads=2, global_blocks=(1,)),
    input_side=256,
    embedding_stride=16,
    width=64,
    decoder_mlp_width=128,
)
BENCHMARKS = ROOT / "tests" / "benchmarks"


@pytest.fixture
def random_model(randomise: Callable[[Sam, int], Sam]) -> Model:
    """Random weights, the masks' logits scaled so that masks exist."""
    torch.manual_seed(0)
    sam = randomise(build_sam(CONFIG), 0)
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight.data *= 10
    return Model(name="random", model_id="random-0", sam=sam, card=released_card("random", CONFIG))


@pytest.fixture
def peer_pipeline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peer_pipeline")


def both_sides(
    peer_pipeline: ModuleType, model: Model, photo: np.ndarray, config: GenerateConfig, iou_quantile: float
) -> tuple[list[Rle], list[Rle]]:
    """Our masks and the peer's, with thresholds at quantiles of the photograph's own scores."""
    every = generate_masks(
        model, photo, peer_pipeline.like_the_peer(replace(config, box_nms_threshold=1.01), -1.0, 0.0)
    )
    every = replace(every, masks=[mask for mask in every.masks if mask.predicted_iou > 0])
    config = peer_pipeline.open_thresholds(every, config, iou_quantile=iou_quantile, stability_quantile=0.5)
    ours = [mask.rle for mask in generate_masks(model, photo, config).masks]
    with torch.inference_mode():
        return ours, peer_pipeline.peer_masks(peer_pipeline.make_peer(model.sam), photo, config)


@pytest.mark.parametrize("size_hw", [(267, 400), (400, 300)])
def test_a_random_network_gives_the_peers_masks_before_nms(
    peer_pipeline: ModuleType, random_model: Model, size_hw: tuple[int, int]
) -> None:
    """Ragged masks that fill the picture: NMS would leave one, so it is off and every mask that passes is compared."""
    config = GenerateConfig(points_per_side=12, box_nms_threshold=1.01)
    ours, theirs = both_sides(peer_pipeline, random_model, resize(data.coffee(), size_hw), config, 0.5)
    found = peer_pipeline.agreement(ours, theirs)
    assert found.ours >= 20
    assert found.share >= 0.99
    assert abs(found.ours - found.peers) <= 0.01 * found.peers


@pytest.mark.parametrize("name", ["chelsea", "astronaut"])
def test_the_seed_gives_the_peers_masks_after_nms(peer_pipeline: ModuleType, name: str) -> None:
    """A coarse grid on two photographs; tests/benchmarks/parity_generate.py takes a folder of them."""
    photo = getattr(data, name)()[:300]
    config = GenerateConfig(points_per_side=10, box_nms_threshold=0.9)
    ours, theirs = both_sides(peer_pipeline, load_model("seed"), photo, config, 0.3)
    found = peer_pipeline.agreement(ours, theirs)
    assert found.ours >= 5
    assert found.matched == found.ours == found.peers
