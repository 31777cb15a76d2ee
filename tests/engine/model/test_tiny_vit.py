"""The TinyViT encoder against the original definitions, whose answers to known weights are written down here.

At full size (1024 px, the same kind of weights) embeddings differ from those of the original definitions by 9e-6 of
their standard deviation in fp32, and by 2e-14 in fp64 at 160 px.
"""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from engine.model.config import MOBILE, SamConfig, TinyVitConfig
from engine.model.sam import build_sam
from engine.model.tiny_vit import TinyVit, distances
from tests.paths import SAM_PARAMETERS

ORIGINAL_EMBEDDING = [
    [-2.5487, -1.4296, -1.0600, 0.1011],
    [2.0054, 0.5746, 0.4323, 0.3512],
    [0.2525, 0.9171, 1.3164, 0.8092],
    [0.3651, 1.7419, 1.7537, 0.1739],
    [-2.8365, -2.1045, -2.6560, -1.1179],
    [-0.3476, -0.2854, -0.0284, -0.2565],
]
"""Every 51st channel, every third row, column 5 of the embedding of 160 x 160 pixels: windows padded and not."""


def known_weights() -> dict[str, torch.Tensor]:
    """Weights that any machine draws alike, sized so that reversing any one tensor moves the embedding by .02."""
    names = json.loads(SAM_PARAMETERS.read_text())["mobile"]
    shapes = {name.removeprefix("image_encoder."): shape for name, shape in names.items() if "image_encoder" in name}
    random = np.random.RandomState(0)
    state = {}
    for name, shape in sorted(shapes.items()):
        values = torch.from_numpy(np.asarray(random.standard_normal(shape))).float()
        if name.endswith("num_batches_tracked"):
            values = torch.tensor(0)
        elif name.endswith("running_var"):
            values = 1 + 0.3 * values.tanh()
        elif len(shape) == 1:
            values = 1 + 0.3 * values if name.endswith("weight") else values if "qkv" in name else 0.5 * values
        elif "biases" not in name:
            values = (3 if "qkv" in name else 1) * values / values[0].numel() ** 0.5
        state[name] = values
    return state


@pytest.fixture(scope="module")
def encoder() -> TinyVit:
    with torch.device("meta"):
        encoder = TinyVit(TinyVitConfig(), MOBILE.width)
    encoder.load_state_dict(known_weights(), strict=True, assign=True)
    return encoder.eval()


def test_embeddings_are_those_of_the_original_definitions(encoder: TinyVit) -> None:
    pixels = torch.from_numpy(np.random.RandomState(1).standard_normal((1, 3, 160, 160))).float()
    with torch.inference_mode():
        embedding = encoder(pixels)
    assert embedding.shape == (1, 256, 10, 10)
    assert (embedding[0, ::51, ::3, 5] - torch.tensor(ORIGINAL_EMBEDDING)).abs().max() < 1e-3


def test_a_batch_is_encoded_as_its_images_are(encoder: TinyVit) -> None:
    pixels = torch.randn(3, 3, 112, 208, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        together, apart = encoder(pixels), torch.cat([encoder(image[None]) for image in pixels])
    assert together.shape == (3, 256, 7, 13)
    assert (together - apart).abs().max() < 1e-4


def test_a_side_that_is_no_multiple_of_the_stride_is_refused(encoder: TinyVit) -> None:
    with pytest.raises(ValueError, match="got pixels of 160 x 168, expected sides that are multiples of 16"):
        encoder(torch.zeros(1, 3, 160, 168))


def test_distances_are_of_rows_then_columns() -> None:
    table = distances(3, torch.device("cpu"))
    assert table.shape == (9, 9)
    assert table[0].tolist() == list(range(9))
    assert table[8].tolist() == list(range(8, -1, -1))
    assert torch.equal(table, table.T)


def test_gradients_reach_all_but_the_classifier() -> None:
    small = TinyVitConfig(widths=(8, 12, 16, 20), depths=(1, 1, 1, 1), heads=(2, 2, 2))
    torch.manual_seed(0)
    sam = build_sam(SamConfig(image_encoder=small, input_side=64, width=32, decoder_heads=4, decoder_mlp_width=32))
    sam.encode(torch.randn(2, 3, 64, 64)).square().sum().backward()
    without = {name for name, weight in sam.image_encoder.named_parameters() if weight.grad is None}
    assert without == {"norm_head.weight", "norm_head.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": (3, 5, 10)}, r"heads \(3, 5, 10\) do not divide the widths"),
        ({"depths": (2, 2, 0, 2)}, "at least 1"),
        ({"window_sides": (7, 7)}, "three numbers of heads and window sides"),
    ],
)
def test_contradictory_sizes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TinyVitConfig(), **change)
