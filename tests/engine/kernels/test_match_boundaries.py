"""The matching of boundary pixels, on cases counted by hand and against a search that tries every pair."""

import numpy as np
import pytest

from engine.kernels.match_boundaries import BoundaryMatcher


def pixels(*places: tuple[int, int], size: tuple[int, int] = (6, 8)) -> np.ndarray:
    found = np.zeros(size, dtype=bool)
    for row, column in places:
        found[row, column] = True
    return found


def pairs(predicted_HW: np.ndarray, truth_HW: np.ndarray, distance: float) -> int:
    matched_HW, found_HW = BoundaryMatcher(predicted_HW, truth_HW, distance).match(predicted_HW)
    assert not (matched_HW & ~predicted_HW).any()
    assert not (found_HW & ~truth_HW).any()
    assert matched_HW.sum() == found_HW.sum()
    return int(found_HW.sum())


@pytest.mark.parametrize(
    ("predicted", "truth", "distance", "expected"),
    [
        ([(2, 2)], [(2, 2)], 0, 1),  # the same pixel
        ([(2, 2)], [(2, 4)], 2, 1),  # exactly the largest distance
        ([(2, 2)], [(2, 4)], 1.9, 0),
        ([(2, 2)], [(3, 3)], 1.42, 1),  # a diagonal step is 1.414
        ([(2, 2)], [(3, 3)], 1.41, 0),
        ([(2, 1), (2, 3)], [(2, 2)], 1, 1),  # a pixel of the truth has one partner
        ([(2, 1), (2, 3)], [(2, 2), (2, 4)], 1, 2),  # the greedy (2, 3) to (2, 2) would leave one pair
        ([(0, 0), (5, 7)], [(5, 0), (0, 7)], 2, 0),  # nothing reaches around the border
        ([], [(1, 1)], 3, 0),
        ([(1, 1)], [], 3, 0),
    ],
)
def test_pairs_counted_by_hand(
    predicted: list[tuple[int, int]], truth: list[tuple[int, int]], distance: float, expected: int
) -> None:
    assert pairs(pixels(*predicted), pixels(*truth), distance) == expected


def test_a_line_beside_a_line_matches_whole_and_a_subset_matches_its_part() -> None:
    line_HW, beside_HW = (pixels(*((row, column) for row in range(6))) for column in (2, 4))
    assert pairs(line_HW, beside_HW, 2) == 6
    matcher = BoundaryMatcher(line_HW, beside_HW, 2)
    part_HW = line_HW.copy()
    part_HW[2:] = False
    matched_HW, found_HW = matcher.match(part_HW)
    assert (matched_HW == part_HW).all()
    assert found_HW.sum() == 2
    with pytest.raises(ValueError, match="subset of the candidates"):
        matcher.match(beside_HW)


def test_random_maps_have_as_many_pairs_as_a_search_of_all_pairs_finds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        predicted_HW, truth_HW = rng.random((2, 9, 11)) < 0.25
        assert pairs(predicted_HW, truth_HW, 2.3) == most_pairs(predicted_HW, truth_HW, 2.3)


def most_pairs(predicted_HW: np.ndarray, truth_HW: np.ndarray, distance: float) -> int:
    """Count the pairs of a largest matching by augmenting paths, from the distance of every pair."""
    predicted, truth = np.argwhere(predicted_HW), np.argwhere(truth_HW)
    near = np.linalg.norm(predicted[:, None] - truth[None], axis=-1) <= distance
    partner: dict[int, int] = {}

    def augment(row: int, seen: set[int]) -> bool:
        for column in np.flatnonzero(near[row]).tolist():
            if column not in seen:
                seen.add(column)
                if column not in partner or augment(partner[column], seen):
                    partner[column] = row
                    return True
        return False

    return sum(augment(row, set()) for row in range(len(predicted)))
