"""Positions of prompts and of the embedding grid where matrix products are bfloat16."""

import torch

from engine.model.prompt_encoder import RandomFourierPosition


def test_positions_are_the_same_under_autocast() -> None:
    torch.manual_seed(0)
    encode = RandomFourierPosition(32)
    points = torch.rand(50, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encode(points)
    assert torch.equal(found, encode(points))
