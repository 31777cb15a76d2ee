"""Upsampling by name of backend, and comparison of two results, for the tests of `upsample_runs`."""

from typing import TypeAlias

import numpy as np
import torch

from engine.images import Frame
from engine.kernels.upsample_runs import Backend, UpsampledMasks, upsample_runs

Geometry: TypeAlias = tuple[tuple[int, int], tuple[int, int, int, int] | None, int, int]
"""Height and width of the image, window (None: the whole image), side of the model's input, side of the logits."""
GEOMETRIES: dict[str, Geometry] = {
    "landscape": ((300, 451), None, 128, 32),
    "portrait": ((451, 300), None, 128, 32),
    "square, as large as the model": ((128, 128), None, 128, 32),
    "smaller than the model": ((37, 23), None, 128, 32),
    "one pixel wide": ((200, 1), None, 128, 32),
    "one pixel high": ((1, 200), None, 128, 32),
    "one pixel": ((1, 1), None, 128, 32),
    "ten times as large as the model": ((210, 330), None, 32, 8),
    "crop at the upper left": ((300, 451), (0, 0, 260, 170), 128, 32),
    "crop inside": ((300, 451), (51, 33, 280, 211), 128, 32),
    "crop at the lower right": ((300, 451), (200, 90, 451, 300), 128, 32),
    "crop of full height": ((300, 451), (100, 0, 300, 300), 128, 32),
    "odd sizes": ((331, 777), (13, 7, 600, 330), 100, 25),
    "the seed's grid": ((534, 800), None, 640, 160),
}


def make_frame(geometry: Geometry) -> Frame:
    """Make the frame of a geometry."""
    image_hw, crop, model_side, _ = geometry
    return Frame(crop_xyxy=crop or (0, 0, image_hw[1], image_hw[0]), image_hw=image_hw, model_side=model_side)


def run(logits_NRC: torch.Tensor, frame: Frame, side: int, backend: Backend, offset: float = 1.0) -> UpsampledMasks:
    """Upsample logits of a decoder whose whole output has this side."""
    return upsample_runs(logits_NRC, frame, low_side=side, stability_offset=offset, backend=backend)


def assert_same(ours: UpsampledMasks, theirs: UpsampledMasks) -> None:
    """Compare run lengths, boxes, areas and stability exactly."""
    assert ours.rles == theirs.rles
    assert np.array_equal(ours.boxes_incl_N4, theirs.boxes_incl_N4)
    assert np.array_equal(ours.areas_N, theirs.areas_N)
    assert np.array_equal(ours.stability_N, theirs.stability_N)
