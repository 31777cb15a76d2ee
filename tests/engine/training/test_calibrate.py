"""Lines that make the IoU head honest."""

import pytest
import torch

from engine.prompts import Prompts
from engine.training.calibrate import SLOPES, IouPairs, fit_lines, fold_lines
from engine.training.initialise import fresh_sam
from tests.engine.training.tiny import TINY_SAM


def test_lines_undo_a_bias_of_each_answer() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(4000, 4, generator=generator)
    slope, offset = torch.tensor([0.65, 0.8, 1.0, 0.7]), torch.tensor([0.2, -0.1, 0.0, 0.05])
    lines = fit_lines(IouPairs(predicted_P4=(true - offset) / slope, true_P4=true))
    torch.testing.assert_close(lines, torch.stack([slope, offset], 1), atol=0.02, rtol=0.02)


def test_too_little_to_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="over 20 clicks, too little"):
        fit_lines(IouPairs(predicted_P4=torch.full((20, 4), 0.7), true_P4=torch.rand(20, 4)))


def test_slopes_stay_within_limits_and_the_mean_is_still_right() -> None:
    generator = torch.Generator().manual_seed(0)
    true, predicted = torch.rand(500, 4, generator=generator), torch.rand(500, 4, generator=generator)
    lines = fit_lines(IouPairs(predicted_P4=predicted, true_P4=true))
    torch.testing.assert_close(lines[:, 0], torch.full((4,), SLOPES[0]))
    torch.testing.assert_close((predicted * lines[:, 0] + lines[:, 1]).mean(0), true.mean(0))


def test_a_folded_line_changes_the_predictions_by_it_and_the_masks_not_at_all() -> None:
    sam = fresh_sam(TINY_SAM, seed=1).eval()
    prompts = Prompts(points_PK2=torch.rand(5, 1, 2) * 64, labels_PK=torch.ones(5, 1, dtype=torch.int64))
    embeddings = torch.randn(1, TINY_SAM.width, 8, 8)
    lines = torch.tensor([[0.5, 0.1], [0.9, 0.0], [1.1, -0.2], [1.0, 0.3]])
    with torch.no_grad():
        before = sam.decode(embeddings, prompts, outputs="all")
        fold_lines(sam, lines)
        after = sam.decode(embeddings, prompts, outputs="all")
    torch.testing.assert_close(after.iou_PM, before.iou_PM * lines[:, 0] + lines[:, 1])
    assert torch.equal(after.logits_PMLL, before.logits_PMLL)
