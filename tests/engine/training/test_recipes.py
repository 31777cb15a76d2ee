"""Recipes whose numbers follow from what they are given."""

import pytest

from engine.training.recipes import retraining_recipe, retraining_steps
from tests.tiny_network import TINY


@pytest.mark.parametrize(("masks", "steps"), [(0, 60), (48, 60), (100, 125), (240, 300), (10**6, 300)])
def test_few_new_masks_are_trained_on_for_few_steps(masks: int, steps: int) -> None:
    assert retraining_steps(masks) == steps
    assert retraining_recipe(TINY, retraining_steps(masks)).total_steps == steps
