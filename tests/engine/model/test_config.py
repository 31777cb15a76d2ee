import dataclasses
import json
from typing import Any

import pytest

from engine.model.config import MOBILE, VIT_B, VIT_H, VIT_L, HybridConfig, SamConfig, TinyVitConfig, VitConfig

SEED_LIKE = SamConfig(image_encoder=HybridConfig(), input_side=320, embedding_stride=8, width=128)


@pytest.mark.parametrize("config", [VIT_B, VIT_L, VIT_H, MOBILE, SEED_LIKE])
def test_a_config_survives_json(config: SamConfig) -> None:
    assert SamConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_sides_follow_from_the_stride() -> None:
    assert (VIT_B.embedding_side, VIT_B.logits_side) == (64, 256)
    assert (SEED_LIKE.embedding_side, SEED_LIKE.logits_side) == (40, 160)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding_stride": 7}, "embedding_stride 7 does not divide input_side 1024"),
        ({"width": 100}, "width 100"),
        ({"decoder_heads": 24}, "decoder's heads, 24"),
        ({"mask_prompt_channels": 6}, "mask_prompt_channels 6"),
        ({"decoder_depth": 0}, "at least 1"),
        ({"image_encoder": HybridConfig()}, "hybrid encoder has stride 8"),
        ({"image_encoder": TinyVitConfig(), "embedding_stride": 8}, "TinyViT encoder has stride 16; got .* 8"),
    ],
)
def test_contradictory_sizes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(VIT_B, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "heads 5 does not divide"),
        ({"global_blocks": (12,)}, "below depth 12"),
        ({"depth": 0}, "at least 1"),
    ],
)
def test_contradictory_vit_sizes_are_refused(change: dict[str, Any], message: str) -> None:
    sizes = {"width": 768, "depth": 12, "heads": 12, "global_blocks": (2, 5, 8, 11)}
    with pytest.raises(ValueError, match=message):
        VitConfig(**{**sizes, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_side": "1024"}, r"config.input_side: got '1024', expected a whole number"),
        ({"input_side": True}, r"config.input_side: got True"),
        ({"colour": 3}, r"unknown fields \['colour'\]"),
        ({"image_encoder": {"kind": "resnet"}}, r"image_encoder.kind: got 'resnet', expected one of"),
        ({"image_encoder": [1]}, r"image_encoder.kind: got None"),
        ({"image_encoder": {"kind": "vit", "width": 8}}, r"config.image_encoder: missing fields \['depth'"),
    ],
)
def test_malformed_json_is_refused_with_the_fields_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamConfig.from_json(VIT_B.to_json() | change)


def test_a_missing_field_is_named() -> None:
    data = VIT_B.to_json()
    del data["width"]
    with pytest.raises(ValueError, match=r"config: missing fields \['width'\]"):
        SamConfig.from_json(data)
