"""Runs against pycocotools, which is the definition of COCO's strings, boxes, areas and merges."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from storage import rle
from storage.rle import Rle


def coco_of(mask_HW: np.ndarray) -> Any:
    return coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))


masks = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(lambda shape: arrays(bool, shape))
pairs = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.lists(arrays(bool, shape), min_size=2, max_size=4)
)
EDGE_CASES = {
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "one pixel picture, set": np.ones((1, 1), bool),
    "one pixel picture, clear": np.zeros((1, 1), bool),
    "one column": np.array([[1], [0], [1], [1]], bool),
    "one row": np.array([[0, 1, 1, 0, 1]], bool),
    "first pixel set": np.pad([[True]], ((0, 4), (0, 6))),
    "last pixel set": np.pad([[True]], ((4, 0), (6, 0))),
    "run over a column's end": np.pad(np.ones((5, 2), bool), ((0, 0), (1, 3))),
    "chessboard": np.indices((9, 9)).sum(axis=0) % 2 == 0,
    "large runs": np.pad(np.ones((3, 2), bool), ((0, 2000), (1500, 1))),
}


def assert_equals_coco(mask_HW: np.ndarray) -> None:
    ours, theirs = rle.encode(mask_HW), coco_of(mask_HW)
    text = theirs["counts"].decode()
    height, width = mask_HW.shape
    assert rle.to_coco(ours) == text
    assert rle.from_coco(text, height=height, width=width) == ours
    assert rle.from_coco(theirs["counts"], height=height, width=width) == ours
    np.testing.assert_array_equal(rle.decode(ours), mask_HW)
    assert rle.decode(ours).dtype == np.bool_
    assert rle.decode(ours).flags.c_contiguous
    assert rle.area(ours) == int(coco.area(theirs))
    assert rle.box_xywh(ours) == coco.toBbox(theirs).tolist()


@given(masks)
@settings(deadline=None)
def test_every_mask_reads_as_pycocotools_reads_it(mask_HW: np.ndarray) -> None:
    assert_equals_coco(mask_HW)


@pytest.mark.parametrize("name", EDGE_CASES)
def test_edge_cases_read_as_pycocotools_reads_them(name: str) -> None:
    assert_equals_coco(EDGE_CASES[name])


def test_uint8_and_fortran_ordered_masks_are_read_alike() -> None:
    mask_HW = EDGE_CASES["chessboard"]
    for same in (mask_HW.astype(np.uint8) * 255, np.asfortranarray(mask_HW), mask_HW.astype(np.float32)):
        assert rle.encode(same) == rle.encode(mask_HW)


@given(pairs)
@settings(deadline=None)
def test_intersection_iou_and_merge_equal_pycocotools(masks_HW: list[np.ndarray]) -> None:
    ours, theirs = [rle.encode(each) for each in masks_HW], [coco_of(each) for each in masks_HW]
    expected = coco.iou(theirs, theirs, [0] * len(theirs))
    # pycocotools calls the IoU of two empty masks not a number or 0, by the version; here it is 0
    np.testing.assert_allclose(rle.iou_matrix(ours, ours), np.nan_to_num(expected), rtol=0, atol=1e-12)
    assert rle.iou(ours[0], ours[1]) == pytest.approx(np.nan_to_num(expected[0, 1]))
    assert rle.intersection(ours[0], ours[1]) == int((masks_HW[0] & masks_HW[1]).sum())
    for intersect in (False, True):
        assert rle.to_coco(rle.merge(ours, intersect=intersect)) == coco.merge(theirs, intersect)["counts"].decode()


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=9), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_long_runs_and_inner_zeros_survive_the_string(counts: list[int], zeros: int) -> None:
    """Strings of other tools may hold runs of 0; they are kept, so that reading and writing changes nothing."""
    counts = [*counts, *[0] * zeros]
    total = sum(counts)
    if not 0 < total <= rle.MAX_PIXELS:
        return
    runs = Rle(height=1, width=total, counts=np.array(counts, np.uint32))
    assert rle.from_coco(rle.to_coco(runs), height=1, width=total) == runs


def test_runs_of_zero_do_not_change_area_box_or_pixels() -> None:
    odd = Rle(height=2, width=3, counts=np.array([0, 0, 1, 2, 0, 1, 2, 0], np.uint32))
    mask_HW = rle.decode(odd)
    plain = rle.encode(mask_HW)
    assert plain != odd
    assert (rle.area(odd), rle.box_xyxy(odd)) == (rle.area(plain), rle.box_xyxy(plain))
    assert rle.iou(odd, plain) == 1.0
    assert rle.merge([odd, odd]) == plain


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "empty string"),
        ("\u00e9", "character '\u00e9' at 0"),
        ("5\n", r"character '\\n' at 1"),
        ("p", "character 'p' at 0"),
        ("6P", "middle of a run"),
        ("7", "add up to 7, expected 2 x 3 = 6"),
        ("O5", "negative"),
        ("oooooooo0", "9 characters"),
        ([1, 2, 3], "got a list"),
    ],
)
def test_a_bad_string_is_refused_with_the_reason(counts: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.from_coco(counts, height=2, width=3)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, -1), (2**20, 2**20), (1.5, 4), ("2", 3)])
def test_impossible_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="pixels"):
        rle.from_coco("6", height=height, width=width)


def test_masks_of_other_shapes_and_runs_that_do_not_fill_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 3, 1\)"):
        rle.encode(np.zeros((2, 3, 1), bool))
    with pytest.raises(ValueError, match="at least 1"):
        rle.encode(np.zeros((0, 3), bool))
    with pytest.raises(ValueError, match="add up to 5"):
        rle.decode(Rle(height=2, width=3, counts=np.array([5], np.uint32)))
    with pytest.raises(ValueError, match="different sizes"):
        rle.iou(rle.encode(np.ones((2, 3), bool)), rle.encode(np.ones((3, 2), bool)))
    with pytest.raises(ValueError, match="got none"):
        rle.merge([])


def test_runs_that_add_up_only_by_going_round_64_bits_are_refused() -> None:
    longest = 2**34 - 1  # the largest difference that a code holds
    pairs = 46_340  # of a background and a foreground run; the latter grow by `longest` from pair to pair
    rest = 2**64 + 4 - longest * pairs * (pairs + 1) // 2
    background, more = divmod(rest, pairs - 1)
    values = [0, longest] + [0, longest] * (pairs - 1)
    values[2] = background
    values[-2 * more] += 1  # so the last `more` background runs are one pixel longer
    assert 0 <= background < longest
    with pytest.raises(ValueError, match=r"expected below 2\*\*32"):
        rle.from_coco("".join(map(seven_characters, values)), height=1, width=4)


def seven_characters(value: int) -> str:
    return "".join(chr(48 + (value >> 5 * place & 0x1F) + 0x20 * (place < 6)) for place in range(7))
