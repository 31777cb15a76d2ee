import numpy as np
import pytest
from skimage.segmentation import felzenszwalb

from engine.evaluation.classical import MIN_SEGMENT_PX, SCALES, SIGMA, FelzenszwalbSegmenter, segment_masks
from engine.labelled import load_folder, read_pixels
from storage import rle
from tests.paths import PHOTOS


def labels_of_scikit_image(image_HW3: np.ndarray) -> np.ndarray:
    """The plain version: each scale on its own."""
    return np.stack([felzenszwalb(image_HW3, scale=k, sigma=SIGMA, min_size=MIN_SEGMENT_PX) for k in SCALES])


@pytest.mark.parametrize("number", range(3))
def test_a_photograph_has_the_segments_of_scikit_image_at_every_scale(number: int) -> None:
    image_HW3 = read_pixels(load_folder(PHOTOS)[number])[:300, :400]
    labels_SHW = FelzenszwalbSegmenter().open(image_HW3).labels_SHW
    np.testing.assert_array_equal(labels_SHW, labels_of_scikit_image(image_HW3))
    assert labels_SHW.dtype == np.int32
    assert (np.diff(labels_SHW.max((1, 2))) < 0).all()  # fewer and larger segments from scale to scale


@pytest.mark.parametrize("height_width", [(1, 1), (1, 70), (70, 1), (2, 2), (60, 80)])
@pytest.mark.parametrize("kind", ["even", "noise", "halves"])
def test_images_of_equal_colours_noise_and_odd_sizes_have_them_too(kind: str, height_width: tuple[int, int]) -> None:
    image_HW3 = np.zeros((*height_width, 3), dtype=np.uint8)
    if kind == "noise":
        image_HW3 = np.random.default_rng(0).integers(0, 256, image_HW3.shape, dtype=np.uint8)
    if kind == "halves":  # every difference within a half is 0: all orders of equal edges
        image_HW3[:, height_width[1] // 2 :] = 200
    labels_SHW = FelzenszwalbSegmenter().open(image_HW3).labels_SHW
    np.testing.assert_array_equal(labels_SHW, labels_of_scikit_image(image_HW3))


def test_the_masks_of_segments_cut_in_one_pass_are_those_cut_one_by_one() -> None:
    labels_HW = np.random.default_rng(1).integers(0, 9, (37, 53)).astype(np.int32)
    labels_HW[:, 20:30] = 4
    assert segment_masks(labels_HW) == [rle.encode(labels_HW == number) for number in range(9)]
