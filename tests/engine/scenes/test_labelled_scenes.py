"""Procedural scenes as labelled images."""

import numpy as np

from engine.labelled import read_pixels
from engine.scenes.labelled_scenes import MAX_FRACTION, labelled_scenes
from storage import rle


def test_scenes_have_distinct_masks_of_all_levels_and_equal_seeds_give_equal_scenes() -> None:
    first, again = labelled_scenes(2, 128, 5, min_mask_px=30), labelled_scenes(2, 128, 5, min_mask_px=30)
    for scene, same in zip(first, again, strict=True):
        masks = scene.masks_by_annotator[0]
        assert masks == same.masks_by_annotator[0]
        assert len(masks) == len(set(masks)) > 1
        assert all(30 <= rle.area(mask) <= MAX_FRACTION * 128 * 128 for mask in masks)
        assert read_pixels(scene).shape == (128, 128, 3)
        assert np.array_equal(read_pixels(scene), read_pixels(same))
    assert not np.array_equal(read_pixels(first[0]), read_pixels(first[1])), "each scene has its own pixels"
