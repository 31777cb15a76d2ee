"""The matching of boundary pixels, on cases counted by hand and against scipy's dense assignment."""

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from engine.kernels.match_boundaries import BoundaryMatcher
from engine.kernels.match_boundaries_numba import Graph, cheapest_matching


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
    assert pairs(pixels(*truth), pixels(*predicted), distance) == expected


@pytest.mark.parametrize(
    ("predicted", "truth", "distance", "matched"),
    [
        ([(2, 1), (2, 5)], [(2, 4)], 3, [(2, 5)]),  # the nearer one, to the right
        ([(2, 3), (2, 7)], [(2, 4)], 3, [(2, 3)]),  # to the left
        ([(2, 0), (2, 3), (2, 4)], [(2, 2), (2, 5)], 3, [(2, 3), (2, 4)]),  # 1 + 1, not 2 + 1
        ([(2, 0), (2, 3)], [(2, 1), (2, 4)], 3, [(2, 0), (2, 3)]),
    ],
)
def test_of_several_largest_matchings_the_one_of_the_least_distances_is_taken(
    predicted: list[tuple[int, int]], truth: list[tuple[int, int]], distance: float, matched: list[tuple[int, int]]
) -> None:
    matched_HW, _ = BoundaryMatcher(pixels(*predicted), pixels(*truth), distance).match(pixels(*predicted))
    assert (matched_HW == pixels(*matched)).all()
    _, found_HW = BoundaryMatcher(pixels(*truth), pixels(*predicted), distance).match(pixels(*truth))
    assert (found_HW == pixels(*matched)).all()


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


@pytest.mark.parametrize("distance", [1.5, 2.3, 4.3])
def test_random_maps_cost_what_the_benchmarks_whole_assignment_costs(distance: float) -> None:
    rng = np.random.default_rng(0)
    outlier_cost = math.ceil(100 * distance * 100)
    for _ in range(20):
        predicted_HW, truth_HW = rng.random((2, 9, 11)) < rng.uniform(0.05, 0.5, (2, 1, 1))
        predicted, truth = np.argwhere(predicted_HW), np.argwhere(truth_HW)
        apart = np.linalg.norm(predicted[:, None] - truth[None], axis=-1)
        # the benchmark's square of both maps and as many outliers, all connected
        costs = np.full((len(predicted) + len(truth),) * 2, outlier_cost)
        costs[: len(predicted), : len(truth)] = np.where(apart <= distance, np.rint(apart * 100), 10**9)
        rows, columns = linear_sum_assignment(costs)
        least = (rows < len(predicted)) & (columns < len(truth))

        matched_HW, found_HW = BoundaryMatcher(predicted_HW, truth_HW, distance).match(predicted_HW)
        assert matched_HW.sum() == found_HW.sum() == least.sum()
        own = costs[: len(predicted), : len(truth)][np.ix_(matched_HW[predicted_HW], found_HW[truth_HW])]
        assert own[linear_sum_assignment(own)].sum() == costs[rows, columns][least].sum()


@pytest.mark.parametrize("outlier_cost", [4, 9, 100])
def test_a_row_goes_without_a_partner_where_that_costs_less(outlier_cost: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        rows, columns = rng.integers(1, 9, 2)
        cost_RC = rng.integers(0, outlier_cost + 1, (rows, columns))
        is_edge_RC = rng.random((rows, columns)) < 0.5
        is_row_R, is_column_C = rng.random(rows) < 0.9, rng.random(columns) < 0.9
        start_R1 = np.concatenate([[0], np.cumsum(is_edge_RC.sum(axis=1))])
        graph = Graph(start_R1, np.nonzero(is_edge_RC)[1], cost_RC[is_edge_RC], is_row_R, is_column_C, outlier_cost)
        column_R = cheapest_matching(graph)

        kept = np.flatnonzero(column_R >= 0)
        assert len(set(column_R[kept].tolist())) == len(kept)
        assert is_edge_RC[kept, column_R[kept]].all()
        assert is_row_R[kept].all()
        assert is_column_C[column_R[kept]].all()
        whole = np.full((rows, columns + rows), outlier_cost)
        whole[:, :columns] = np.where(is_edge_RC & is_row_R[:, None] & is_column_C, cost_RC, 10**9)
        total = cost_RC[kept, column_R[kept]].sum() + (rows - len(kept)) * outlier_cost
        assert total == whole[linear_sum_assignment(whole)].sum()
