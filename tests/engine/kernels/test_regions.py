"""Clean-up of small regions: both backends against the definition on the whole image, and against each other."""

import json
import sys

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from engine.images import decode
from engine.kernels import regions as module
from engine.kernels.regions import Backend, CleanedMask, clean_small_regions
from storage import rle
from storage.rle import Rle
from tests.paths import PHOTOS

THRESHOLDS = (1, 2, 3, 9, 50, 400)

masks = array_shapes(min_dims=2, max_dims=2, max_side=20).flatmap(lambda shape: arrays(bool, shape))
sparse_masks = array_shapes(min_dims=2, max_dims=2, max_side=20).flatmap(
    lambda shape: arrays(bool, shape, elements=st.just(True), fill=st.just(False))
)


def rings(side: int, thickness: int) -> np.ndarray:
    """Draw nested square rings; foreground and background take turns."""
    y_SS, x_SS = np.mgrid[0:side, 0:side]
    to_border_SS = np.minimum.reduce([y_SS, x_SS, side - 1 - y_SS, side - 1 - x_SS])
    return np.asarray(to_border_SS // thickness % 2 == 0)


CHESSBOARD = np.indices((9, 10)).sum(axis=0) % 2 == 0
LATTICE = (np.indices((12, 13)) % 3 == 0).all(axis=0)
"""Many islands of one pixel: the first in OpenCV's numbering counts as the largest."""
SHAPES = {
    "empty": np.zeros((6, 8), bool),
    "full": np.ones((6, 8), bool),
    "one pixel": np.ones((1, 1), bool),
    "one row": np.array([[1, 0, 1, 1, 0, 0, 0, 1, 0]], bool),
    "one column": np.array([[1, 0, 1, 1, 0, 0, 0, 1, 0]], bool).T,
    "touching all borders": ~np.pad(np.ones((5, 6), bool), 1),
    "cross from border to border": np.array([[x == 5 or y == 4 for x in range(11)] for y in range(9)]),
    "corners only": np.pad(np.zeros((5, 6), bool), 1) | (np.indices((7, 8)) % 6 == 0).all(axis=0),
    "nested rings": rings(25, 1),
    "nested thick rings": ~rings(31, 3),
    "chessboard": CHESSBOARD,
    "inverse chessboard": ~CHESSBOARD,
    "lattice": LATTICE,
    "lattice of holes": ~LATTICE,
    "comb": np.array([[y == 9 or x % 2 == 0 for x in range(15)] for y in range(10)]),
}


def assert_backends_agree(runs: Rle, min_px: int) -> None:
    found = clean_small_regions(runs, min_px, backend="numba")
    assert found == clean_small_regions(runs, min_px, backend="reference")
    assert found.is_changed == (found.rle != runs)


@given(mask=st.one_of(masks, sparse_masks), min_px=st.integers(0, 401))
@example(mask=LATTICE, min_px=2)
@settings(deadline=None, max_examples=400)
def test_numba_and_opencv_clean_every_mask_the_same_way(mask: np.ndarray, min_px: int) -> None:
    assert_backends_agree(rle.encode(mask), min_px)


@pytest.mark.parametrize("min_px", THRESHOLDS)
@pytest.mark.parametrize("name", SHAPES)
def test_numba_and_opencv_clean_edge_cases_the_same_way(name: str, min_px: int) -> None:
    mask = SHAPES[name]
    for turned in (mask, mask[::-1], mask[:, ::-1], mask.T):
        assert_backends_agree(rle.encode(turned), min_px)


@pytest.mark.parametrize("domain", ["coco", "facade", "nuclei", "nuts"])
def test_numba_and_opencv_clean_masks_of_photos_the_same_way(domain: str) -> None:
    """Masks are the photo's own, its bright pixels (thousands of regions), and the former cut by the latter."""
    file = sorted((PHOTOS / domain).glob("*.json"))[0]
    photo = decode(next(path for path in file.parent.glob(f"{file.stem}.*") if path != file).read_bytes())
    brightness = photo.mean(axis=2)
    bright = rle.encode(brightness > np.median(brightness))
    own = rle.from_coco_many([each["segmentation"] for each in json.loads(file.read_text())["annotations"]])[:8]
    assert own
    for runs in [bright, *own, *(rle.merge([bright, each], intersect=True) for each in own)]:
        for min_px in (10, 100, 3000):
            assert_backends_agree(runs, min_px)


def test_of_islands_of_one_size_both_backends_keep_the_same_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        mask = np.zeros(rng.integers(1, 60, 2), dtype=bool)
        mask.flat[rng.integers(0, mask.size, 6)] = True
        assert_backends_agree(rle.encode(mask), int(rng.integers(2, 40)))


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_empty_runs_inside_a_mask_change_nothing(backend: Backend) -> None:
    with_empty = Rle(height=4, width=5, counts=np.array([0, 3, 0, 2, 4, 0, 2, 9], dtype=np.uint32))
    plain = rle.encode(rle.decode(with_empty))
    found = clean_small_regions(with_empty, 7, backend=backend)
    assert found.is_changed
    assert found == clean_small_regions(plain, 7, backend=backend)


def test_a_mask_of_more_than_two_to_the_31_pixels_is_cleaned() -> None:
    side = 64_000
    speck, hole = side * 1000 + 7, side * 30_000 + 9  # column-major positions of one pixel each
    starts_and_ends = np.array([speck, speck + 1, side * 2000, hole, hole + 1, side * side])
    found = clean_small_regions(rle.from_edges(starts_and_ends, height=side, width=side), 100, backend="numba")
    assert found.largest_island_px == side * (side - 2000)
    assert found.rle.counts.tolist() == [side * 2000, side * (side - 2000)]


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_runs_that_do_not_add_up_are_refused(backend: Backend) -> None:
    broken = Rle(height=4, width=5, counts=np.array([3, 18], dtype=np.uint32))
    with pytest.raises(ValueError, match="add up to 21, expected 4 x 5"):
        clean_small_regions(broken, 7, backend=backend)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="got backend 'cuda', expected 'auto', 'reference' or 'numba'"):
        clean_small_regions(rle.encode(CHESSBOARD), 7, backend="cuda")


def test_asking_for_numba_where_it_is_missing_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.regions_numba", None)
    with pytest.raises(RuntimeError, match="install numba"):
        clean_small_regions(rle.encode(CHESSBOARD), 7, backend="numba")


def test_without_numba_auto_takes_opencv_and_warns_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.regions_numba", None)
    module.fastest_backend.cache_clear()
    runs = rle.encode(CHESSBOARD)
    cleaned = [clean_small_regions(runs, 7) for _ in range(2)]
    module.fastest_backend.cache_clear()
    assert cleaned == [clean_small_regions(runs, 7, backend="reference")] * 2
    assert caplog.text.count("OpenCV on decoded masks") == 1


def cleaned_by_the_book(mask: np.ndarray, min_px: int) -> np.ndarray:
    """Region by region over the whole image: holes, then islands; the largest island stays if all are small."""
    mask = mask.copy()
    count, labels = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=8)
    for label in range(1, count):
        if (labels == label).sum() < min_px:
            mask[labels == label] = True
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    sizes = [(labels == label).sum() for label in range(1, count)]
    for label, size in enumerate(sizes, start=1):
        if size < min_px and not (max(sizes) < min_px and label == int(np.argmax(sizes)) + 1):
            mask[labels == label] = False
    return mask


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("min_px", [1, 5, 40, 300])
@pytest.mark.parametrize("shape", [(60, 80), (7, 90), (90, 7), (1, 50), (50, 1), (64, 64)])
def test_both_backends_decide_by_the_whole_image(shape: tuple[int, int], min_px: int, backend: Backend) -> None:
    rng = np.random.default_rng(min_px)
    for smoothness in (1, 3, 7):
        noise = cv2.blur(rng.normal(size=shape).astype(np.float32), (smoothness, smoothness))
        mask = noise > np.quantile(noise, rng.choice([0.2, 0.5, 0.9]))
        cleaned = clean_small_regions(rle.encode(mask), min_px, backend=backend)
        expected = cleaned_by_the_book(mask, min_px)
        assert np.array_equal(rle.decode(cleaned.rle), expected)
        assert cleaned.is_changed == (not np.array_equal(mask, expected))


def test_a_hole_is_filled_a_speck_removed_and_what_is_large_stays() -> None:
    mask = np.zeros((100, 120), dtype=bool)
    mask[10:60, 10:60] = True
    mask[20:25, 20:25] = False  # 25 px: a hole
    mask[30:45, 30:45] = False  # 225 px: an opening
    mask[80:84, 90:94] = True  # 16 px: a speck
    cleaned = clean_small_regions(rle.encode(mask), 100)
    assert cleaned.is_changed
    assert cleaned.largest_island_px == 50 * 50 - 225
    assert rle.area(cleaned.rle) == 50 * 50 - 225


def test_regions_touch_over_corners() -> None:
    diagonal = rle.encode(np.eye(12, dtype=bool))
    assert clean_small_regions(diagonal, 12) == CleanedMask(rle=diagonal, is_changed=False, largest_island_px=12)


def test_of_small_islands_alone_the_largest_is_reported() -> None:
    mask = np.zeros((50, 50), dtype=bool)
    mask[2:5, 2:5] = mask[20:26, 20:26] = True
    cleaned = clean_small_regions(rle.encode(mask), 100)
    assert cleaned.largest_island_px == 36
    assert rle.box_xyxy(cleaned.rle) == (20, 20, 26, 26)


@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_masks_are_left_as_they_are(fill: bool) -> None:
    runs = rle.encode(np.full((30, 20), fill))
    cleaned = clean_small_regions(runs, 100)
    assert cleaned.rle == runs
    assert not cleaned.is_changed
    assert cleaned.largest_island_px == (600 if fill else 0)
