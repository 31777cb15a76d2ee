"""Muon and which weights it takes."""

import torch
from torch import nn

from engine.training.initialise import fresh_sam
from engine.training.optimizer import STEP_RMS, Muon, make_optimizers, orthogonalise
from engine.training.peers import Peers
from tests.engine.training.tiny import TINY_SAM


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


def test_parameters_without_a_gradient_stay() -> None:
    still, moved = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8, 8))
    moved.grad = torch.randn(8, 8)
    Muon([still, moved], lr=0.1, weight_decay=0.5, peers=Peers()).step()
    assert torch.equal(still.detach(), torch.ones(8, 8))
    assert not torch.equal(moved.detach(), torch.ones(8, 8))
