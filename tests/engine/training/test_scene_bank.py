"""The bank of scenes that windows are cut from."""

from pathlib import Path

import numpy as np

from engine.scenes.batch import SceneBatch
from engine.training.scene_bank import SceneBank
from engine.training.sources import WindowConfig
from tests.engine.training.tiny import TINY_BANK, square_scenes


def test_a_source_is_prepared_before_its_processes_ask(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    bank.prepare(2)
    assert [bank.has(number) for number in range(4)] == [True, True, True, False]


def test_masks_are_whole_levels_of_the_tree_and_large_enough(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0), min_mask_px=100)
    areas = set()
    for seed in range(20):
        cut = bank.cut(np.random.default_rng(seed), 0, window, 4)
        areas |= set(cut.masks_NHW.sum((1, 2)).tolist())
    assert areas == {16 * 16, 32 * 32 - 16 * 16, 32 * 32, 64 * 64 - 32 * 32}


def test_all_masks_of_a_window_are_the_distinct_ones_of_the_tree(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    cut = bank.cut_all(np.random.default_rng(0), 0, WindowConfig(side_px=64, zoom=(1.0, 1.0), min_mask_px=100))
    ring, inner = 32 * 32 - 16 * 16, 16 * 16
    assert sorted(cut.masks_NHW.sum((1, 2)).tolist()) == sorted([64 * 64 - 32 * 32, ring, inner, ring + inner])
    large = bank.cut_all(np.random.default_rng(0), 0, WindowConfig(side_px=64, zoom=(1.0, 1.0), min_mask_px=800))
    assert sorted(large.masks_NHW.sum((1, 2)).tolist()) == [32 * 32, 64 * 64 - 32 * 32]


def test_the_bank_makes_a_missing_chunk_and_reads_what_another_process_made(tmp_path: Path) -> None:
    made: list[int] = []

    def generate(seed: int, count: int) -> SceneBatch:
        made.append(seed)
        return square_scenes(seed, count)

    first, second = SceneBank(tmp_path, TINY_BANK, generate), SceneBank(tmp_path, TINY_BANK, generate)
    assert not second.has(1)
    chunk = first.chunk(1)
    assert second.has(1)
    assert np.array_equal(second.chunk(1).images, chunk.images)
    assert made == [TINY_BANK.seed + 1]


def test_two_processes_that_make_the_same_chunk_leave_one(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    bank.make(2)
    bank.make(2)
    assert [path.name for path in tmp_path.iterdir()] == ["chunk-000002"]


def test_later_steps_draw_from_more_scenes() -> None:
    assert [TINY_BANK.chunks_at(step) for step in (0, 1, 2, 4, 1000)] == [2, 2, 3, 4, 6]
