"""Photographs in threads: results in order, bounded memory, errors in their place, and the same masks."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from skimage import data

from engine.automatic.config import PRESETS
from engine.automatic.generate import generate_masks
from engine.automatic.overlap import overlapped
from engine.images import resize
from engine.model.weights import load_model


def test_results_come_in_the_items_order_whoever_ends_first() -> None:
    second_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_done.wait(60)
        if item == 1:
            second_done.set()
        return item * item

    assert list(overlapped(work, range(8), threads=2)) == [item * item for item in range(8)]


def test_no_more_items_are_taken_than_threads_while_nobody_takes_results() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results: Any = overlapped(lambda item: item, items(), threads=3)
    assert next(results) == 0
    assert len(taken) == 4  # three were begun, and the one that the first result made room for was asked for
    results.close()
    assert len(taken) == 4


def test_an_error_is_raised_in_its_items_place() -> None:
    def work(item: int) -> float:
        return 1 / (item - 2)

    results = overlapped(work, range(5), threads=2)
    assert [next(results), next(results)] == [-0.5, -1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        overlapped(str, range(2), threads=0)


def test_the_masks_are_those_of_one_photograph_at_a_time() -> None:
    seed = load_model("seed")
    config = replace(PRESETS["grid"], points_per_side=4, predicted_iou_threshold=0.1, stability_threshold=0.1)
    photos = [resize(photo[:300, :400], (90, 120)) for photo in (data.astronaut(), data.coffee(), data.chelsea())]
    together = list(overlapped(lambda photo: generate_masks(seed, photo, config), photos, threads=3))
    assert together == [generate_masks(seed, photo, config) for photo in photos]
    assert sum(len(each.masks) for each in together) >= 3
