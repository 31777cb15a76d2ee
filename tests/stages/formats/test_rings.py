"""Rings of a mask: filled by pycocotools they are the mask, whatever holes, parts and touching corners it has."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from stages.formats import rings
from stages.formats.rings import join, rings_of


def fill(ring: np.ndarray, height: int, width: int) -> np.ndarray:
    pixels: np.ndarray = coco.decode(coco.frPyObjects([ring.ravel().astype(float).tolist()], height, width))[..., 0] > 0
    return pixels


def test_rings_go_along_the_corners_of_pixels() -> None:
    mask = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], np.bool_)
    (ring,) = rings_of(mask)
    assert {tuple(corner) for corner in ring.tolist()} == {(1, 0), (3, 0), (3, 3), (2, 3), (2, 2), (1, 2)}
    assert rings_of(np.zeros((3, 4), np.bool_)) == []


@pytest.mark.parametrize("pairs", [0, rings._PAIRS])
@pytest.mark.parametrize("seed", range(20))
def test_one_joined_ring_is_the_mask(monkeypatch: pytest.MonkeyPatch, seed: int, pairs: int) -> None:
    """Half of the masks are noise, in which pixels touch at corners; the others are blobs with holes.

    Without pairs bridges are long, as in masks of very many rings.
    """
    monkeypatch.setattr(rings, "_PAIRS", pairs)
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(5, 60, 2))
    noise = rng.random((height, width))
    mask = noise < 0.5 if seed % 2 else cv2.GaussianBlur(noise, (0, 0), 2) > np.float64(0.5)
    np.testing.assert_array_equal(fill(join(rings_of(mask)), height, width), mask)
