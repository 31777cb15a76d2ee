"""The grid decoder against `Sam.decode`."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from engine.model.config import SamConfig, VitConfig
from engine.model.grid_decoder import GridDecoder, PlainDecoder, make_point_decoder
from engine.model.sam import Sam, build_sam

ENCODER = VitConfig(width=16, depth=1, heads=1, global_blocks=())
SMALL = SamConfig(
    image_encoder=ENCODER, input_side=160, embedding_stride=16, width=32, decoder_heads=2, decoder_mlp_width=48
)
CONFIGS = {
    "small": SMALL,
    "one block": replace(SMALL, decoder_depth=1),
    "three blocks": replace(SMALL, decoder_depth=3),
    "eight heads": replace(SMALL, width=128, decoder_heads=8),
    "the original widths": replace(SMALL, width=256, decoder_heads=8, decoder_mlp_width=2048),
}


@pytest.fixture
def make_sam(randomise: Callable[[Sam, int], Sam]) -> Callable[[SamConfig, torch.dtype], Sam]:
    def make(config: SamConfig, dtype: torch.dtype) -> Sam:
        torch.manual_seed(0)
        return randomise(build_sam(config), 0).to(dtype)

    return make


def asked(sam: Sam, count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An embedding, points and a choice of masks with none of some points and several of others."""
    generator = torch.Generator().manual_seed(1)
    side = sam.config.embedding_side
    embeddings = torch.randn(1, sam.config.width, side, side, generator=generator, dtype=torch.float64)
    points = torch.rand(count, 2, generator=generator, dtype=torch.float64) * sam.config.input_side
    wanted = torch.rand(count, 3, generator=generator) > 0.6
    return embeddings.to(dtype), points, wanted


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("name", CONFIGS)
def test_iou_and_logits_are_those_of_the_network(
    make_sam: Callable[[SamConfig, torch.dtype], Sam], name: str, dtype: torch.dtype, tolerance: float
) -> None:
    sam = make_sam(CONFIGS[name], dtype)
    embeddings, points, wanted = asked(sam, 9, dtype)
    rows, columns = 27, 40
    with torch.inference_mode():
        plain, grid = PlainDecoder(sam, embeddings), GridDecoder(sam, embeddings)
        theirs, ours = plain.predict(points), grid.predict(points)
        their_logits, our_logits = (
            d.mask_logits(a, wanted, (rows, columns)) for d, a in ((plain, theirs), (grid, ours))
        )
    assert (ours.iou_PM - theirs.iou_PM).abs().max() <= tolerance * theirs.iou_PM.abs().max()
    assert len(our_logits) == len(their_logits) == wanted.sum()
    difference = our_logits[:, :rows, :columns] - their_logits
    assert difference.abs().max() <= tolerance * their_logits.abs().max()


def test_only_whole_cells_that_the_image_reaches_are_drawn(
    make_sam: Callable[[SamConfig, torch.dtype], Sam],
) -> None:
    sam = make_sam(SMALL, torch.float32)
    embeddings, points, wanted = asked(sam, 5, torch.float32)
    with torch.inference_mode():
        decoder = GridDecoder(sam, embeddings)
        prediction = decoder.predict(points)
        whole = decoder.mask_logits(prediction, wanted, (40, 40))
        part = decoder.mask_logits(prediction, wanted, (13, 38))
    assert part.shape == (wanted.sum(), 16, 40)
    assert torch.allclose(part, whole[:, :16], atol=1e-5)


def test_no_mask_wanted_draws_none(make_sam: Callable[[SamConfig, torch.dtype], Sam]) -> None:
    sam = make_sam(SMALL, torch.float32)
    embeddings, points, wanted = asked(sam, 3, torch.float32)
    with torch.inference_mode():
        decoder = GridDecoder(sam, embeddings)
        assert decoder.mask_logits(decoder.predict(points), torch.zeros_like(wanted), (40, 40)).shape == (0, 40, 40)


def test_embeddings_of_another_shape_and_unknown_kinds_are_refused(
    make_sam: Callable[[SamConfig, torch.dtype], Sam],
) -> None:
    sam = make_sam(SMALL, torch.float32)
    for shape in ((2, 32, 10, 10), (1, 16, 10, 10), (1, 32, 9, 10)):
        with pytest.raises(ValueError, match="expected"):
            GridDecoder(sam, torch.zeros(shape))
    with pytest.raises(ValueError, match="expected 'auto', 'grid', 'fused' or 'plain'"):
        make_point_decoder("fast", sam, torch.zeros(1, 32, 10, 10))
