"""Training of the ViT encoder: drop path, and gradient checkpointing."""

import pytest
import torch

from engine.model.config import SamConfig, VitConfig
from engine.model.image_encoder import ImageEncoder, draw_branch_factors
from engine.model.sam import build_sam

VIT = VitConfig(width=32, depth=4, heads=2, global_blocks=(3,), window_side=3)
CONFIG = SamConfig(image_encoder=VIT, input_side=64, width=32, decoder_heads=2)


@pytest.fixture
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    made = build_sam(CONFIG).image_encoder
    assert isinstance(made, ImageEncoder)
    return made


def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_drop_path_is_the_identity_in_evaluation(encoder: ImageEncoder) -> None:
    factors = draw_branch_factors(4, 0.9, torch.zeros(4, 2, 3))
    assert (factors[-1] == 0).all()
    with torch.no_grad():
        assert torch.equal(encoder.eval()(pixels(), factors), encoder(pixels()))
        assert not torch.allclose(encoder.train()(pixels(), factors), encoder(pixels()))


def test_an_image_that_loses_every_branch_keeps_its_patches_alone(encoder: ImageEncoder) -> None:
    factors = torch.ones(4, 2, 3)
    factors[..., 1] = 0
    encoder.train()
    with torch.no_grad():
        out = encoder(pixels(), factors)
        whole = encoder(pixels())
        patches = encoder.patch_embed(pixels()) + encoder.pos_embed
        bare = encoder.neck(patches.permute(0, 3, 1, 2))
    torch.testing.assert_close(out[1], bare[1])
    torch.testing.assert_close(out[[0, 2]], whole[[0, 2]])


def test_branches_are_dropped_ever_more_often_and_rescaled_to_keep_their_mean() -> None:
    uniform = torch.rand(5, 2, 20_000, generator=torch.Generator().manual_seed(0))
    factors = draw_branch_factors(5, 0.4, uniform)
    dropped = (factors == 0).float().mean((1, 2))
    torch.testing.assert_close(dropped, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]), atol=0.01, rtol=0)
    torch.testing.assert_close(factors.mean((1, 2)), torch.ones(5), atol=0.02, rtol=0)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_recomputed_blocks_give_the_same_gradients(encoder: ImageEncoder, drop_path: float) -> None:
    uniform = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(2))
    factors = draw_branch_factors(4, drop_path, uniform) if drop_path else None
    encoder.train()
    gradients = []
    for recomputes in (False, True):
        encoder.recomputes_blocks = recomputes
        encoder.zero_grad()
        encoder(pixels(), factors).square().mean().backward()
        gradients.append([weight.grad.clone() for weight in encoder.parameters() if weight.grad is not None])
    assert len(gradients[0]) == len(list(encoder.parameters()))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_recomputing_keeps_less_until_the_backward_pass(encoder: ImageEncoder) -> None:
    kept = []
    encoder.train()
    for recomputes in (False, True):
        encoder.recomputes_blocks = recomputes
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):  # type: ignore[misc]
            encoder(pixels())
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3
