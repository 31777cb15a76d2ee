"""Which cell answers for which box, and the loss."""

import pytest
import torch

from engine.detector.config import DetectorConfig
from engine.detector.head import CellPredictions, box_iou_pairs, cells_of
from engine.detector.targets import assign, detector_loss

SIZES = DetectorConfig(embedding_width=8, embedding_side=16, input_side=128, width=8, levels=3)
CELLS = cells_of(SIZES, "cpu")


def boxes(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def test_cells_of_all_levels_cover_the_input_evenly() -> None:
    assert len(CELLS.middles_K2) == 16 * 16 + 8 * 8 + 4 * 4
    assert CELLS.sides_K.unique().tolist() == [8.0, 16.0, 32.0]
    assert CELLS.middles_K2[0].tolist() == [4.0, 4.0]
    assert CELLS.middles_K2[1].tolist() == [12.0, 4.0]
    assert CELLS.middles_K2[-1].tolist() == [112.0, 112.0]


def test_a_box_belongs_to_the_levels_of_its_size_near_its_middle() -> None:
    taken_K = assign(CELLS, boxes((40, 40, 80, 80)))
    sides = CELLS.sides_K[taken_K == 0]
    assert set(sides.tolist()) == {8.0, 16.0}, "five small cells a side and 2.5 larger ones, but one of the largest"
    offsets = (CELLS.middles_K2[taken_K == 0] - 60).abs()
    assert (offsets < 1.5 * sides[:, None]).all()


def test_of_two_boxes_with_one_middle_the_smaller_wins_where_both_claim_a_cell() -> None:
    taken_K = assign(CELLS, boxes((20, 20, 76, 76), (33, 33, 63, 63)))
    nearest = ((CELLS.middles_K2 - 48).abs().amax(1) < CELLS.sides_K) & (CELLS.sides_K == 8)
    assert (taken_K[nearest] == 1).all()
    assert 0 in taken_K, "the larger box has cells of its own"


def test_the_smallest_and_the_largest_boxes_have_cells_too() -> None:
    tiny, huge = boxes((50.5, 50.5, 52, 52)), boxes((0, 0, 128, 128))
    assert (assign(CELLS, tiny) == 0).sum() == 1
    assert CELLS.sides_K[assign(CELLS, huge) == 0].max() == 32.0


def test_without_boxes_every_cell_is_background() -> None:
    assert (assign(CELLS, boxes()) == -1).all()


def test_iou_and_generalised_iou_are_those_of_hand_made_pairs() -> None:
    a = boxes((0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 10))
    b = boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 0, 30, 10))
    iou_N, generalised_N = box_iou_pairs(a, b)
    assert iou_N.tolist() == pytest.approx([1.0, 50 / 150, 0.0])
    assert generalised_N.tolist() == pytest.approx([1.0, 50 / 150, -100 / 300])


def test_right_boxes_with_high_scores_cost_less_than_wrong_ones() -> None:
    truth = boxes((40, 40, 80, 80))
    taken_K = assign(CELLS, truth)
    near = torch.where((taken_K == 0)[:, None], truth, boxes((0, 0, 128, 128)))
    right = CellPredictions(logits_BK=torch.where(taken_K == 0, 6.0, -6.0)[None], boxes_BK4=near[None])
    wrong = CellPredictions(logits_BK=-right.logits_BK, boxes_BK4=boxes((0, 0, 9, 9)).expand(1, len(taken_K), 4))
    assert detector_loss(right, CELLS, [truth]) < 0.05
    assert detector_loss(wrong, CELLS, [truth]) > 2
    assert detector_loss(right, CELLS, [boxes()]) > 0, "an image without boxes teaches the scores"
