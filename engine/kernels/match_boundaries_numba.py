"""Least-cost matching of a sparse bipartite graph by shortest augmenting paths, compiled by numba.

The rows enter one after another. Each takes the cheapest alternating path to a free column, or leaves one row of the
path without a partner where that is cheaper (Jonker and Volgenant 1987, "A shortest augmenting path algorithm for dense
and sparse linear assignment problems"). Costs are integers, so that the result is exact. Shape letters: R rows,
C columns, E edges.
"""

import heapq
from typing import NamedTuple

import numba
import numpy as np


class Graph(NamedTuple):
    """Rows, columns and the edges between them; a tuple, as numba takes no dataclass."""

    start_R1: np.ndarray
    """Int64; the edges of row r are `start_R1[r]` to `start_R1[r + 1]`."""
    column_E: np.ndarray
    """Int64 column of each edge."""
    cost_E: np.ndarray
    """Int64 cost of each edge, from 0 to `outlier_cost`."""
    is_row_R: np.ndarray
    """Bool; whether each row takes part."""
    is_column_C: np.ndarray
    """Bool; whether each column takes part."""
    outlier_cost: int
    """Cost of a row without a partner."""


class _State(NamedTuple):
    """Pairs and prices so far; no edge costs less than the prices of its row and column, and a pair costs the same."""

    column_R: np.ndarray
    row_C: np.ndarray
    price_R: np.ndarray
    price_C: np.ndarray
    distance_C: np.ndarray
    """Length of the shortest path to each column; over the outlier cost where no path was found, and between paths."""
    before_C: np.ndarray
    """Row before each column on that path."""


@numba.njit(cache=True, nogil=True)
def cheapest_matching(graph: Graph) -> np.ndarray:
    """Match rows and columns one to one at the least total cost; return the column of each row, int64 [R], -1 for none.

    The total is the cost of the pairs, plus the outlier cost for each row without a partner.
    """
    num_rows, num_columns = len(graph.is_row_R), len(graph.is_column_C)
    state = _State(
        np.full(num_rows, -1),
        np.full(num_columns, -1),
        np.full(num_rows, graph.outlier_cost),
        np.zeros(num_columns, dtype=np.int64),
        np.full(num_columns, graph.outlier_cost + 1),
        np.full(num_columns, -1),
    )
    for row in range(num_rows):
        if graph.is_row_R[row]:
            _take_nearest(graph, state, row)
    for row in range(num_rows):
        if graph.is_row_R[row] and state.column_R[row] < 0 and state.price_R[row] < graph.outlier_cost:
            _enter(graph, state, row)
    return state.column_R


@numba.njit(cache=True, nogil=True)
def _take_nearest(graph: Graph, state: _State, row: int) -> None:
    """Let a row take one of its cheapest columns if one is free, and make their cost the row's price."""
    nearest = -1
    for edge in range(graph.start_R1[row], graph.start_R1[row + 1]):
        column, cost = graph.column_E[edge], graph.cost_E[edge]
        if not graph.is_column_C[column]:
            continue
        if cost < state.price_R[row] or (cost == state.price_R[row] and state.row_C[column] < 0):
            state.price_R[row], nearest = cost, column
    if nearest >= 0 and state.row_C[nearest] < 0:
        state.column_R[row], state.row_C[nearest] = nearest, row


@numba.njit(cache=True, nogil=True)
def _enter(graph: Graph, state: _State, entering: int) -> None:
    """Let a row enter by the shortest path to a free column, or to a row that goes without a partner from then on."""
    shortest, last_column, last_row = graph.outlier_cost - state.price_R[entering], -1, entering
    reached, settled = [entering for _ in range(0)], [entering for _ in range(0)]  # numba infers what they hold
    queue = [(entering, entering) for _ in range(0)]
    row, distance = entering, 0
    while True:
        free = _reach(graph, state, row, distance, shortest, reached, queue)
        if free >= 0:
            shortest, last_column, last_row = state.distance_C[free], free, -1
        distance, column = _pop_nearest(queue, state.distance_C)
        if column < 0 or distance >= shortest:
            break
        settled.append(column)
        row = state.row_C[column]
        if distance + graph.outlier_cost - state.price_R[row] < shortest:
            shortest, last_column, last_row = distance + graph.outlier_cost - state.price_R[row], -1, row

    # prices first: they belong to the pairs before the path
    state.price_R[entering] += shortest
    for column in settled:
        state.price_C[column] -= shortest - state.distance_C[column]
        state.price_R[state.row_C[column]] += shortest - state.distance_C[column]
    for column in reached:
        state.distance_C[column] = graph.outlier_cost + 1
    if last_row >= 0:
        last_column, state.column_R[last_row] = state.column_R[last_row], -1
    _take_path(state, last_column)


@numba.njit(cache=True, nogil=True)
def _reach(
    graph: Graph,
    state: _State,
    row: int,
    row_distance: int,
    shortest: int,
    reached: list[int],
    queue: list[tuple[int, int]],
) -> int:
    """Find shorter paths to the columns next to a row; return the nearest free one below `shortest`, or -1."""
    free = -1
    for edge in range(graph.start_R1[row], graph.start_R1[row + 1]):
        column = graph.column_E[edge]
        if not graph.is_column_C[column]:
            continue
        distance = row_distance + graph.cost_E[edge] - state.price_R[row] - state.price_C[column]
        if distance >= min(shortest, state.distance_C[column]):
            continue
        if state.distance_C[column] > graph.outlier_cost:
            reached.append(column)
        state.distance_C[column], state.before_C[column] = distance, row
        if state.row_C[column] < 0:
            shortest, free = distance, column
        else:
            heapq.heappush(queue, (distance, column))
    return free


@numba.njit(cache=True, nogil=True)
def _pop_nearest(queue: list[tuple[int, int]], distance_C: np.ndarray) -> tuple[int, int]:
    """Take the nearest column from the queue, with its distance; column -1 where none is left."""
    while len(queue) > 0:
        distance, column = heapq.heappop(queue)
        if distance == distance_C[column]:  # else a shorter path was found since
            return distance, column
    return 0, -1


@numba.njit(cache=True, nogil=True)
def _take_path(state: _State, column: int) -> None:
    """Let every row on the path to a column take the column after it."""
    while column >= 0:
        row = state.before_C[column]
        state.row_C[column] = row
        state.column_R[row], column = column, state.column_R[row]
