"""Losses against numbers worked out by hand."""

import math

import pytest
import torch

from engine.training.losses import dice_loss, focal_loss, mask_iou, min_loss, score_masks


def test_focal_loss_of_an_undecided_cell_is_a_quarter_of_log_two() -> None:
    logits = torch.zeros(1, 1, 2, 2)
    target = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    assert focal_loss(logits, logits.sigmoid(), target).item() == pytest.approx(0.25 * math.log(2))


def test_focal_loss_hardly_counts_cells_that_are_right() -> None:
    logits = torch.tensor([[[[3.0, -3.0]]]])
    target = torch.tensor([[[[1.0, 0.0]]]])
    wrong = 1 / (1 + math.exp(3))
    expected = wrong**2 * -math.log(1 - wrong)
    assert focal_loss(logits, logits.sigmoid(), target).item() == pytest.approx(expected, rel=1e-4)


def test_dice_loss_counts_overlap_over_both_areas() -> None:
    probability = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    target = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert dice_loss(probability, target).item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))


def test_the_loss_is_twenty_parts_focal_and_one_part_dice() -> None:
    logits = torch.randn(2, 3, 8, 8)
    targets = (torch.rand(2, 8, 8) > 0.5).float()
    probability = logits.sigmoid()
    expected = 20 * focal_loss(logits, probability, targets[:, None]) + dice_loss(probability, targets[:, None])
    torch.testing.assert_close(score_masks(logits, targets).loss_PM, expected)


def test_iou_counts_cells_that_are_at_least_half_covered() -> None:
    logits = torch.tensor([[[[2.0, 2.0], [-2.0, -2.0]]]])
    targets = torch.tensor([[[0.5, 0.25], [1.0, 0.0]]])
    assert mask_iou(logits, targets[:, None]).item() == pytest.approx(1 / 3)


def test_iou_of_nothing_with_nothing_is_zero() -> None:
    assert mask_iou(-torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item() == 0


def test_only_the_best_of_three_answers_learns() -> None:
    target = torch.zeros(1, 8, 8)
    target[:, 2:6, 2:6] = 1
    logits = torch.stack([-4 * torch.ones(8, 8), 8 * target[0] - 4, 4 * torch.ones(8, 8)])[None].requires_grad_()
    min_loss(score_masks(logits, target).loss_PM).sum().backward()
    assert logits.grad is not None
    assert [bool(gradient.any()) for gradient in logits.grad[0]] == [False, True, False]
