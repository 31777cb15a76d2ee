"""Batches made ahead, by a thread and by processes."""

from dataclasses import replace
from pathlib import Path

from engine.training.batches import make_batch
from engine.training.prefetch import prefetch_batches
from engine.training.scene_bank import SceneBank
from engine.training.sources import WindowConfig
from tests.engine.training.tiny import TINY_BANK, TINY_TRAINING, assert_equal_batches, square_scenes

WINDOW = WindowConfig(side_px=32)


def test_prefetched_batches_are_those_of_their_steps(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    windows = [WINDOW, WINDOW, replace(WINDOW, side_px=64)]
    ahead = list(prefetch_batches(bank, TINY_TRAINING.batch, iter(windows), first_step=5, positions=range(2)))
    assert len(ahead) == 3
    for step, (window, batch) in enumerate(zip(windows, ahead, strict=True), 5):
        expected = make_batch(bank, TINY_TRAINING.batch, window, step=step, positions=range(2))
        assert_equal_batches(batch, expected)


def test_processes_make_the_batches_that_a_thread_makes(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    by_thread, by_processes = (
        prefetch_batches(
            bank, TINY_TRAINING.batch, iter([WINDOW] * 6), first_step=1, positions=range(2), cell_px=4, workers=workers
        )
        for workers in (0, 2)
    )
    for expected, batch in zip(by_thread, by_processes, strict=True):
        assert_equal_batches(batch, expected)
