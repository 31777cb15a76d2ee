"""A step's forward pass: on any device, with the paper's objective or the seed's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.model.config import SamConfig
from engine.training.batches import Batch, make_batch
from engine.training.initialise import fresh_sam
from engine.training.scene_bank import SceneBank
from engine.training.sources import WindowConfig
from engine.training.step import Objective, forward_step, iou_errors
from engine.training.train import learn_from
from tests.engine.training.tiny import TINY_BANK, TINY_SAM, TINY_TRAINING, TINY_VIT, square_scenes

PAPER = Objective(idle_mask_fraction=0.0, iou_weight=1.0, single_mask_weight=0.0, corrected_every=1, density_power=0)


class OnOneDevice(TorchDispatchMode):
    """Fails when an operator makes a tensor on another device; numbers, and what Python lifts from the host, may be."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.ndim and func is not torch.ops.aten.lift_fresh.default:
                assert made.device.type == self.device, f"{func} made {list(made.shape)} on {made.device}"
        return out


def batch_of_squares(folder: Path, sam: SamConfig, device: str = "cpu") -> Batch:
    bank = SceneBank(folder / "bank", TINY_BANK, square_scenes)
    window = WindowConfig(side_px=64, zoom=(1.0, 1.2))
    cell_px = sam.embedding_stride // 4
    config = replace(TINY_TRAINING.batch, box_fraction=0.5)
    return make_batch(bank, config, window, step=1, positions=range(3), cell_px=cell_px, device=device)


@pytest.mark.parametrize("sizes", [TINY_SAM, TINY_VIT], ids=["hybrid", "vit"])
def test_a_step_makes_every_tensor_on_the_device_of_its_network(sizes: SamConfig, tmp_path: Path) -> None:
    """On torch's device without data, since no other is at hand everywhere; the arithmetic is not run here."""
    sam = fresh_sam(sizes, seed=5).to("meta").train()
    batch = batch_of_squares(tmp_path, sizes, "meta")
    assert all(tensor.is_meta for tensor in vars(batch).values())
    config = replace(
        TINY_TRAINING, bf16=False, drop_path=0.2 if sizes == TINY_VIT else 0.0, repeats_mask=True, total_steps=1
    )
    config = replace(config, phases=(replace(config.phases[1], until_fraction=1.0),))
    with OnOneDevice("meta"):
        scores = learn_from(config, sam, batch, 0, range(3))
    assert scores.stacked().is_meta
    assert all(weight.grad is not None and weight.grad.is_meta for weight in sam.image_encoder.parameters())


@pytest.fixture
def loss_of(tmp_path: Path) -> Callable[..., Tensor]:
    batch = batch_of_squares(tmp_path, TINY_SAM)
    sam = fresh_sam(TINY_SAM, seed=5).eval()

    def loss(objective: Objective, rounds: tuple[bool, ...]) -> Tensor:
        return forward_step(sam, batch, corner_cells_xy=(0, 0), rounds=rounds, bf16=False, objective=objective)[0]

    return loss


def test_the_papers_objective_is_the_least_loss_and_the_plain_iou_error(loss_of: Callable[..., Tensor]) -> None:
    plain = loss_of(PAPER, ())
    heavy = loss_of(replace(PAPER, iou_weight=3.0), ())
    heavier = loss_of(replace(PAPER, iou_weight=5.0), ())
    torch.testing.assert_close(heavier - heavy, heavy - plain)
    assert plain < loss_of(replace(PAPER, idle_mask_fraction=0.1), ())
    assert plain < loss_of(replace(PAPER, single_mask_weight=0.1), ())


def test_a_round_without_a_click_asks_again_with_the_answer_alone(loss_of: Callable[..., Tensor]) -> None:
    losses = [loss_of(PAPER, rounds) for rounds in ((True, True), (True, False), (False, True), (True, False, True))]
    assert len({round(loss.item(), 6) for loss in losses}) == 4


def test_a_vit_step_is_the_networks_own_answer(tmp_path: Path) -> None:
    """The logits' cells of a ViT are 4 px: targets and clicks are on that grid."""
    batch = batch_of_squares(tmp_path, TINY_VIT)
    assert batch.targets_PLL.shape[1:] == (16, 16)
    cells = (batch.clicks_P2 / 4).int()
    assert (batch.targets_PLL[torch.arange(len(cells)), cells[:, 1], cells[:, 0]] > 0).all()
    sam = fresh_sam(TINY_VIT, seed=5)
    loss, scores = forward_step(sam, batch, corner_cells_xy=(0, 0), rounds=(True, False), bf16=True)
    assert torch.isfinite(loss)
    assert 0 <= scores.corrected_iou <= 1


def test_a_rejected_mask_teaches_the_iou_head_alone(tmp_path: Path) -> None:
    sam = fresh_sam(TINY_SAM, seed=5)
    batch = batch_of_squares(tmp_path, TINY_SAM)
    rejected = replace(batch, weights_P=torch.zeros_like(batch.weights_P), rejected_P=~batch.rejected_P)
    loss, _ = forward_step(sam, rejected, corner_cells_xy=(0, 0), rounds=(True,), bf16=False)
    loss.backward()
    head = [weight.grad for weight in sam.mask_decoder.iou_prediction_head.parameters()]
    masks = [weight.grad for weight in sam.mask_decoder.output_hypernetworks_mlps.parameters()]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in head)
    assert all(grad is None or grad.abs().sum() == 0 for grad in masks)


def test_a_prediction_that_repeats_a_rejected_mask_should_rate_itself_zero() -> None:
    predicted, overlap = torch.tensor([[0.8, 0.8, 0.8]]), torch.tensor([[1.0, 0.5, 0.0]])
    torch.testing.assert_close(iou_errors(predicted, overlap, torch.tensor([True])), torch.tensor([[0.64, 0.32, 0.0]]))
    ordinary = iou_errors(predicted, overlap, torch.tensor([False]))
    torch.testing.assert_close(ordinary, torch.tensor([[0.04, 0.09, 0.64]]))
