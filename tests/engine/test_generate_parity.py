"""The same masks as the transformers mask-generation pipeline, with the same weights and thresholds.

The pipeline's departures from the paper are listed in tests/benchmarks/peer_pipeline.py; tests/benchmarks also has this
comparison over a folder of photographs.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from skimage import data

from engine.generate import GenerateConfig, generate_masks
from engine.images import resize
from engine.model.card import released_card
from engine.model.config import SamConfig, VitConfig
from engine.model.sam import build_sam
from engine.model.weights import Model

CONFIG = SamConfig(
    image_encoder=VitConfig(width=32, depth=2, heads=2, global_blocks=(1,)),
    input_side=256,
    embedding_stride=16,
    width=64,
    decoder_mlp_width=128,
)
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def random_model(randomise) -> Model:
    """Random weights, the masks' logits scaled so that masks exist."""
    torch.manual_seed(0)
    sam = randomise(build_sam(CONFIG), 0)
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight.data *= 10
    return Model(name="random", model_id="random-0", sam=sam, card=released_card("random", CONFIG))


@pytest.mark.parametrize("size_hw", [(267, 400), (400, 300)])
def test_a_random_network_gives_the_peers_masks_before_nms(random_model: Model, size_hw, monkeypatch) -> None:
    """Ragged masks that fill the picture: NMS would leave one, so it is off and every mask that passes is compared."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from peer_pipeline import agreement, like_the_peer, make_peer, open_thresholds, peer_masks

    photo = resize(data.coffee(), size_hw)
    config = GenerateConfig(points_per_side=12, box_nms_threshold=1.01)
    every = generate_masks(random_model, photo, like_the_peer(config, -1.0, 0.0))
    positive = replace(every, masks=[mask for mask in every.masks if mask.predicted_iou > 0])
    config = open_thresholds(positive, config, iou_quantile=0.5, stability_quantile=0.5)
    ours = [mask.rle for mask in generate_masks(random_model, photo, config).masks]
    with torch.inference_mode():
        found = agreement(ours, peer_masks(make_peer(random_model.sam), photo, config))
    assert found.ours >= 20
    assert found.share >= 0.99
    assert abs(found.ours - found.peers) <= 0.01 * found.peers
