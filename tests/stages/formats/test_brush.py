"""Label Studio's brush run lengths, against the example that its own decoder reads."""

import numpy as np
import pytest

from stages.formats import brush

MASK = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], np.bool_)
ENCODED = [0, 0, 0, 48, 57, 27, 252, 96, 19, 255, 206, 1, 63, 253, 176, 8, 255, 227, 0]


def test_a_mask_is_encoded_as_label_studio_reads_it() -> None:
    assert brush.encode(MASK) == ENCODED
    np.testing.assert_array_equal(brush.decode([*ENCODED, 0], 3, 4), MASK)  # their encoder adds a byte at times


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 1.0])
def test_masks_of_any_kind_come_back(fraction: float) -> None:
    for seed, size in enumerate([(1, 1), (7, 3), (300, 401)]):  # of the last, runs are longer than a block
        mask = np.random.default_rng(seed).random(size) < fraction
        np.testing.assert_array_equal(brush.decode(brush.encode(mask), *size), mask)


def literal(values: list[int]) -> list[int]:
    """Write all values as one list, as the editor does where no two are equal."""
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "0" + "10" + f"{len(values) - 1:08b}" + "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def test_lists_of_words_are_read_and_alpha_of_half_and_more_is_the_mask() -> None:
    rgba = [[9, 8, 7, alpha] for alpha in (0, 1, 127, 128, 254, 255)]
    read = brush.decode(literal([value for pixel in rgba for value in pixel]), 2, 3)
    assert read.tolist() == [[False, False, False], [True, True, True]]


@pytest.mark.parametrize(
    ("numbers", "size", "words"),
    [
        (ENCODED, (4, 4), "got 48 values, expected 64"),
        (ENCODED[:-4], (3, 4), "stop in the middle"),
        ([1, 2], (3, 4), "no list of bytes"),
        ([300] * 9, (3, 4), "no list of bytes"),
        (["a"] * 9, (3, 4), "no list of bytes"),
        ([*ENCODED[:9], 255, *ENCODED[10:]], (3, 4), None),
    ],
)
def test_what_is_no_stream_is_refused(numbers: list[int], size: tuple[int, int], words: str | None) -> None:
    if words is None:  # a changed byte gives another mask or an error, and nothing else
        try:
            assert brush.decode(numbers, *size).shape == size
        except ValueError:
            return
    else:
        with pytest.raises(ValueError, match=words):
            brush.decode(numbers, *size)
