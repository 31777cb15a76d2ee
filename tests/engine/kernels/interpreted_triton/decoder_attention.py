"""The decoder's attention between tokens and image: the Triton kernels against the reference."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from engine.automatic.config import PRESETS
from engine.automatic.generate import generate_masks
from engine.images import decode, resize
from engine.kernels import decoder_attention_triton as module
from engine.kernels.decoder_attention import Cells, attend_to_cells, attend_to_tokens
from engine.model.config import SamConfig, VitConfig
from engine.model.grid_decoder import GridDecoder, make_point_decoder
from engine.model.sam import Sam, build_sam
from engine.model.weights import load_model
from storage import rle
from tests.paths import PHOTOS
from tests.tiny_network import save_tiny_model

PHOTO = PHOTOS / "coco" / "coco_000000255165.jpg"
ENCODER = VitConfig(width=16, depth=1, heads=1, global_blocks=())
TINY = SamConfig(
    image_encoder=ENCODER, input_side=112, embedding_stride=16, width=32, decoder_heads=2, decoder_mlp_width=48
)
SIZES = {  # points, cells, channels, heads, tokens
    "the seed's heads, cells for two tiles and a bit": (2, 75, 32, 4, 7),
    "one point": (1, 33, 16, 2, 4),
    "fewer cells than a tile": (2, 9, 16, 1, 7),
    "channels and heads that are no powers of two": (2, 40, 24, 3, 5),
    "cells for several programs": (2, module.CELLS_OF_PROGRAM + 35, 16, 8, 7),
}
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-6}
"""Largest difference to the reference in float64, over its largest value; bfloat16 keeps 8 bits of a value."""


def attention_of(size: str, dtype: torch.dtype, *, is_shared: bool) -> tuple[Cells, Tensor, tuple[Any, ...]]:
    """Cells of one image per point or of a shared one, and the inputs of both directions of attention."""
    points, count, channels, heads, tokens = SIZES[size]
    generator = torch.Generator().manual_seed(count)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    image_PNC = random(1 if is_shared else points, count, channels).expand(points, -1, -1)
    cells = Cells(image_PNC=image_PNC, position_NC=random(count, channels))
    keys_PATC, values_PATC = (random(points, heads, tokens, channels) for _ in range(2))
    norm = nn.LayerNorm(channels).requires_grad_(False)
    norm.weight.copy_(1 + random(channels) / 4)
    norm.bias.copy_(random(channels))
    return cells, keys_PATC.flatten(1, 2) / 2, (keys_PATC / 2, random(points, heads, tokens), values_PATC, norm)


def in_float64(cells: Cells) -> Cells:
    return Cells(image_PNC=cells.image_PNC.double(), position_NC=cells.position_NC.double())


def assert_near(ours: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    assert ours.shape == exact.shape
    assert ours.dtype == dtype
    assert (ours - exact).abs().max() <= TOLERANCE[dtype] * exact.abs().max()


@pytest.mark.parametrize(("size", "dtype", "is_shared"), [*product(SIZES, TOLERANCE, (False, True))])
def test_triton_attends_both_ways_as_plain_torch_does(size: str, dtype: torch.dtype, is_shared: bool) -> None:
    cells, moved_PSC, (keys_PATC, bias_PAT, values_PATC, norm) = attention_of(size, dtype, is_shared=is_shared)
    assert_near(
        attend_to_cells(moved_PSC, cells, backend="triton"),
        attend_to_cells(moved_PSC.double(), in_float64(cells)),
        dtype,
    )
    ours = attend_to_tokens(cells, keys_PATC, bias_PAT, values_PATC, norm, backend="triton")
    exact = [each.double() for each in (keys_PATC, bias_PAT, values_PATC)]
    assert_near(ours, attend_to_tokens(in_float64(cells), *exact, norm.double()), dtype)  # type: ignore[call-arg]


def test_scores_far_apart_neither_overflow_nor_lose_a_head() -> None:
    cells, moved_PSC, (keys_PATC, bias_PAT, values_PATC, norm) = attention_of(
        "one point", torch.float32, is_shared=False
    )
    keys_PATC[:, 0] *= 300  # the other head's scores lie hundreds below
    given = (keys_PATC, bias_PAT, values_PATC, norm)
    for work, arguments in ((attend_to_cells, (300 * moved_PSC, cells)), (attend_to_tokens, (cells, *given))):
        ours, theirs = (work(*arguments, backend=backend) for backend in ("triton", "reference"))
        assert torch.allclose(ours, theirs, atol=2e-4)


def test_no_point_and_types_the_kernels_do_not_take() -> None:
    cells, moved_PSC, given = attention_of("one point", torch.float32, is_shared=False)
    none = Cells(image_PNC=cells.image_PNC[:0], position_NC=cells.position_NC)
    assert attend_to_cells(moved_PSC[:0], none, backend="triton").shape == (0, 8, 16)
    assert attend_to_tokens(none, *(each[:0] for each in given[:3]), given[3], backend="triton").shape == (  # type: ignore[misc]
        0,
        33,
        16,
    )
    with pytest.raises(ValueError, match="expected both float32 or both bfloat16"):
        attend_to_cells(moved_PSC.double(), in_float64(cells), backend="triton")
    with pytest.raises(ValueError, match="expected 'reference' or 'triton'"):
        attend_to_cells(moved_PSC, cells, backend="cuda")


def tiny_sam(config: SamConfig = TINY) -> Sam:
    """Random weights, moved off their initial values so that a part left out would show."""
    torch.manual_seed(0)
    sam = build_sam(config).requires_grad_(False)
    for weight in sam.mask_decoder.parameters():
        weight.copy_(weight * 2 if weight.ndim > 1 else weight + 0.1 * torch.randn_like(weight))
    return sam


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_fused_decoder_answers_like_the_plain_one(depth: int, dtype: torch.dtype, tolerance: float) -> None:
    sam = tiny_sam(replace(TINY, decoder_depth=depth))
    embeddings, points = torch.randn(1, 32, 7, 7), torch.rand(3, 2) * 112
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16, cache_enabled=False):
        ours = make_point_decoder("fused", sam, embeddings).predict(points)
    with torch.inference_mode():
        theirs = make_point_decoder("grid", sam, embeddings).predict(points)
    assert ours.image_PNC.dtype == dtype
    for name in ("iou_PM", "mask_tokens_PMC", "image_PNC"):
        value, expected = getattr(ours, name), getattr(theirs, name)
        assert (value - expected).abs().max() <= tolerance * expected.abs().max(), name


def test_the_generator_makes_the_same_masks_with_the_fused_decoder(tmp_path: Path) -> None:
    photo = resize(decode(PHOTO.read_bytes()), (60, 50))
    config = replace(PRESETS["grid"], points_per_side=4, points_per_batch=6, box_nms_threshold=1.01, min_region_px=0)
    tiny = load_model(save_tiny_model(tmp_path))
    ours, theirs = (generate_masks(tiny, photo, config, decoder=decoder).masks for decoder in ("fused", "grid"))
    assert len(ours) == len(theirs) >= 10
    for mask, expected in zip(ours, theirs, strict=True):
        assert mask.point_xy == expected.point_xy
        assert mask.predicted_iou == pytest.approx(expected.predicted_iou, abs=1e-5)
        assert np.sum(rle.decode(mask.rle) != rle.decode(expected.rle)) <= 1  # a logit that rounds across 0


class Passes(TorchDispatchMode):
    """Counter of what torch's operations read and write of P points x N cells, in images of P x N x C values.

    An operation counts with each operand once, whatever it copies inside.
    """

    def __init__(self, points: int, cells: int, channels: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values_of_channel, self.channels, self.passes = points * cells, channels, 0.0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        is_view = operation.is_view or operation.name() in ("aten::_unsafe_view", "aten::empty.memory_format")
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, Tensor) and not is_view and value.numel() % self.values_of_channel == 0:
                self.passes += value.numel() / self.values_of_channel / self.channels
        return result


def test_a_point_costs_five_passes_over_its_image_and_the_reference_twenty_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The figures of the kernels' docstring, at the widths of SAM's ViTs."""
    kernel_passes: list[int] = []

    def counted(work: Callable[..., Tensor], writes: int) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            (cells,) = [each for each in arguments if isinstance(each, Cells)]
            kernel_passes.append(writes + (cells.image_PNC.stride(0) > 0))  # one image for all stays in the cache
            with _disable_current_modes():  # the interpreter copies what a kernel is given
                return work(*arguments)

        return call

    monkeypatch.setattr(module, "attend_to_cells_triton", counted(module.attend_to_cells_triton, writes=0))
    monkeypatch.setattr(module, "attend_to_tokens_triton", counted(module.attend_to_tokens_triton, writes=1))
    original = SamConfig(image_encoder=ENCODER, input_side=176, embedding_stride=16)
    points, cells = 3, 11 * 11  # the only dimensions with these factors
    with torch.no_grad():  # inference mode would hide the copies inside composite operations
        sam, embeddings, asked = tiny_sam(original), torch.randn(1, 256, 11, 11), torch.rand(points, 2) * 176
        plain, fused = (GridDecoder(sam, embeddings, attention=backend) for backend in ("reference", "triton"))
        with Passes(points, cells, channels=256) as of_plain:
            plain.predict(asked)
        with Passes(points, cells, channels=256) as of_fused:
            fused.predict(asked)
    assert of_plain.passes == pytest.approx(21.45, abs=0.05)
    assert of_fused.passes == 0
    assert kernel_passes == [1, 1, 2, 1]
