"""Numbering of visible leaves, parts and wholes."""

import pytest
import torch

from engine.scenes.batch import NO_PARENT, SceneBatch, number_visible

SCENE = torch.tensor([0, 0, 0, 0, 1, 1, 1])
PART = torch.tensor([5, 5, 9, 8, 3, 2, 1])
WHOLE = torch.tensor([40, 40, 40, 2, 7, 7, 0])


def test_hidden_leaves_get_no_number_and_parents_follow() -> None:
    leaf = torch.tensor([[[0, 2], [3, 0]], [[6, 6], [4, 6]]])
    ids, part, whole, leaves = number_visible(leaf, SCENE, PART, WHOLE)
    assert ids.tolist() == [[[0, 1], [2, 0]], [[1, 1], [0, 1]]]
    assert leaves.tolist() == [3, 2]
    assert part.tolist() == [[0, 2, 1], [1, 0, NO_PARENT]]
    assert whole.tolist() == [[1, 1, 0], [1, 0, NO_PARENT]]


def test_a_level_nobody_knows_is_refused() -> None:
    zeros = torch.zeros(1, 1, dtype=torch.int32)
    batch = SceneBatch(
        images_B3HW=torch.zeros(1, 3, 1, 1, dtype=torch.uint8), ids_BHW=zeros[None], part_BL=zeros, whole_BL=zeros,
        leaves_B=zeros[0] + 1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="level 'object' is unknown"):
        batch.level("object")
