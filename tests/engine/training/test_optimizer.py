"""Muon and which weights it takes."""

import pytest
import torch
from torch import nn

from engine.training.initialise import fresh_sam
from engine.training.optimizer import STEP_RMS, Muon, make_optimizers, orthogonalise, rate_scales, set_rate
from engine.training.peers import Peers
from tests.engine.training.tiny import TINY_SAM, TINY_VIT


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    for rows, columns in ((32, 96), (96, 32), (48, 48)):
        matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
        values = torch.linalg.svdvals(orthogonalise(matrix))
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_a_step_has_its_size_whatever_the_gradient() -> None:
    for size in (1e-4, 1e3):
        weight = nn.Parameter(torch.zeros(64, 64))
        weight.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * size
        Muon([weight], lr=0.01, weight_decay=0.0, peers=Peers()).step()
        torch.testing.assert_close(weight.detach().square().mean().sqrt().item(), 0.01 * STEP_RMS, rtol=0.15, atol=0)


def test_every_weight_has_one_optimizer_and_embeddings_have_adam() -> None:
    sam = fresh_sam(TINY_SAM, seed=0)
    muon, adam = make_optimizers(sam, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.99), peers=Peers())
    names = {id(parameter): name for name, parameter in sam.named_parameters()}
    by_muon = {names[id(parameter)] for group in muon.param_groups for parameter in group["params"]}
    by_adam = {names[id(parameter)] for group in adam.param_groups for parameter in group["params"]}
    assert by_muon | by_adam == set(names.values())
    assert not by_muon & by_adam
    assert "mask_decoder.transformer.layers.0.self_attn.q_proj.weight" in by_muon
    assert {"mask_decoder.mask_tokens.weight", "image_encoder.stage2.0.weight"} <= by_adam


def test_adamw_alone_takes_every_weight_and_decays_matrices() -> None:
    sam = fresh_sam(TINY_SAM, seed=0)
    (adamw,) = make_optimizers(sam, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999), peers=Peers(), kind="adamw")
    assert isinstance(adamw, torch.optim.AdamW)
    decay = {id(weight): group["weight_decay"] for group in adamw.param_groups for weight in group["params"]}
    by_name = {name: decay.pop(id(weight)) for name, weight in sam.named_parameters()}
    assert not decay
    assert (
        by_name["image_encoder.stage2.0.weight"] == by_name["mask_decoder.iou_prediction_head.layers.0.weight"] == 0.1
    )
    assert (
        by_name["mask_decoder.mask_tokens.weight"] == by_name["mask_decoder.iou_prediction_head.layers.0.bias"] == 0.0
    )


def test_layer_decay_gives_each_block_its_power_of_the_rate() -> None:
    sam = fresh_sam(TINY_VIT, seed=0)
    for kind in ("muon", "adamw"):
        optimizers = make_optimizers(
            sam, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.999), peers=Peers(), kind=kind, layer_decay=0.8
        )
        for optimizer in optimizers:
            set_rate(optimizer, 2.0)
        rates = {
            id(weight): group["lr"] for each in optimizers for group in each.param_groups for weight in group["params"]
        }
        assert len(rates) == len(list(sam.parameters()))
        for name, weight in sam.named_parameters():
            below = {"patch": 4, "pos": 4, "blocks.0.": 3, "blocks.1.": 2, "blocks.2.": 1}
            power = next((n for start, n in below.items() if name.startswith(f"image_encoder.{start}")), 0)
            assert rates[id(weight)] == pytest.approx(2.0 * 0.8**power), (kind, name)


def test_layer_decay_is_for_vits() -> None:
    with pytest.raises(ValueError, match="HybridEncoder, expected a ViT"):
        rate_scales(fresh_sam(TINY_SAM, seed=0), 0.8)


def test_parameters_without_a_gradient_stay() -> None:
    still, moved = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8, 8))
    moved.grad = torch.randn(8, 8)
    Muon([still, moved], lr=0.1, weight_decay=0.5, peers=Peers()).step()
    assert torch.equal(still.detach(), torch.ones(8, 8))
    assert not torch.equal(moved.detach(), torch.ones(8, 8))
