"""Training samples, and the bank of scenes they are cut from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.scenes.batch import SceneBatch
from engine.training.data import (
    Batch,
    Cut,
    MixedSource,
    WindowConfig,
    crop_of,
    jitter_scale,
    make_batch,
    prefetch_batches,
)
from engine.training.scene_bank import SceneBank
from tests.engine.training.tiny import TINY_BANK, TINY_TRAINING, square_scenes

WINDOW = WindowConfig(side_px=32)


def assert_equal_batches(a: Batch, b: Batch) -> None:
    for name, tensor in vars(a).items():
        assert torch.equal(tensor, vars(b)[name]), name


def test_a_sample_depends_on_its_step_and_position_alone(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    whole = make_batch(bank, TINY_TRAINING.batch, WINDOW, step=3, positions=range(4))
    halves = [make_batch(bank, TINY_TRAINING.batch, WINDOW, step=3, positions=half) for half in (range(2), range(2, 4))]
    assert torch.equal(whole.pixels_B3SS, torch.cat([half.pixels_B3SS for half in halves]))
    assert torch.equal(whole.targets_PLL, torch.cat([half.targets_PLL for half in halves]))
    assert torch.equal(whole.uniforms_RP3, torch.cat([half.uniforms_RP3 for half in halves], 1))
    another = make_batch(bank, TINY_TRAINING.batch, WINDOW, step=4, positions=range(4))
    assert not torch.equal(whole.pixels_B3SS, another.pixels_B3SS)


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


def test_a_source_is_prepared_before_its_processes_ask(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    bank.prepare(2)
    assert [bank.has(number) for number in range(4)] == [True, True, True, False]


def test_parts_of_a_batch_are_its_pictures_in_order(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    batch = make_batch(bank, TINY_TRAINING.batch, WINDOW, step=3, positions=range(5))
    parts = batch.parts(2)
    assert [len(part.pixels_B3SS) for part in parts] == [2, 2, 1]
    alone = make_batch(bank, TINY_TRAINING.batch, WINDOW, step=3, positions=range(2, 4))
    assert_equal_batches(parts[1], alone)


def test_without_colour_jitter_pixels_are_the_pictures_own(tmp_path: Path) -> None:
    grey = replace(TINY_TRAINING.batch, pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0))
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0))
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    batch = make_batch(bank, replace(grey, colour_jitter=False), window, step=0, positions=range(8))
    jittered = make_batch(bank, grey, window, step=0, positions=range(8))
    known = {tuple(colour) for number in range(2) for colour in bank.chunk(number).images.reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in batch.pixels_B3SS.permute(0, 2, 3, 1).reshape(-1, 3).int().tolist()} <= known
    assert not torch.equal(batch.pixels_B3SS, jittered.pixels_B3SS)


def test_large_scale_jitter_shrinks_to_a_tenth_and_cuts_from_twice_the_window() -> None:
    window = WindowConfig(side_px=100, large_scale_jitter=(0.1, 2.0))
    longest, taken = [], []
    for seed in range(300):
        rows, columns, content_hw = jitter_scale((200, 400), window, np.random.default_rng(seed))
        longest.append(content_hw[1])
        taken.append((columns.stop - columns.start) / 400)
        assert 0 <= rows.start < rows.stop <= 200
        assert 0 <= columns.start < columns.stop <= 400
        assert (rows.stop - rows.start) / content_hw[0] == pytest.approx(
            (columns.stop - columns.start) / content_hw[1], rel=0.2
        )
    assert min(longest) < 15
    assert np.mean(np.array(longest) == 100) == pytest.approx(1 / 1.9, abs=0.1), "factors over 1 fill the window"
    assert min(taken) == pytest.approx(0.5, abs=0.02), "twice as large, half of it shows"
    assert max(taken) == 1.0


def test_clicks_and_targets_of_a_batch_belong_together(tmp_path: Path) -> None:
    batch = make_batch(
        SceneBank(tmp_path, TINY_BANK, square_scenes), TINY_TRAINING.batch, WINDOW, step=0, positions=range(4)
    )
    cells = (batch.clicks_P2 / 2).int()
    hit = batch.targets_PLL[torch.arange(len(cells)), cells[:, 1], cells[:, 0]]
    assert (hit > 0).all()


def test_narrow_pictures_are_padded_with_zeros_below_or_right(tmp_path: Path) -> None:
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0), aspects=(0.5,))
    batch = make_batch(
        SceneBank(tmp_path, TINY_BANK, square_scenes), TINY_TRAINING.batch, window, step=0, positions=range(8)
    )
    below = (batch.pixels_B3SS[:, :, 32:] == 0).flatten(1).all(1)
    right = (batch.pixels_B3SS[:, :, :, 32:] == 0).flatten(1).all(1)
    assert (below ^ right).all()
    assert below.any()
    assert right.any()
    padded_P = below.repeat_interleave(TINY_TRAINING.batch.prompts)
    assert (batch.targets_PLL[padded_P][:, 16:] == 0).all()


def test_masks_are_whole_levels_of_the_tree_and_large_enough(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0), min_mask_px=100)
    areas = set()
    for seed in range(20):
        cut = bank.cut(np.random.default_rng(seed), 0, window, 4)
        areas |= set(cut.masks_NHW.sum((1, 2)).tolist())
    assert areas == {16 * 16, 32 * 32 - 16 * 16, 32 * 32, 64 * 64 - 32 * 32}


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


def test_mixed_sources_are_drawn_by_weight() -> None:
    class Plain:
        def __init__(self, grey: int) -> None:
            self.grey = grey

        def cut(self, rng: np.random.Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
            return Cut(image_HW3=np.full((8, 8, 3), self.grey, np.uint8), masks_NHW=np.ones((prompts, 8, 8), np.uint8))

        def prepare(self, step: int) -> None:
            pass

    mixed = MixedSource([(Plain(0), 3.0), (Plain(1), 1.0)])
    rng = np.random.default_rng(0)
    greys = [mixed.cut(rng, 0, WINDOW, 1).image_HW3[0, 0, 0] for _ in range(2000)]
    assert np.mean(greys) == pytest.approx(0.25, abs=0.03)
    with pytest.raises(ValueError, match="above 0"):
        MixedSource([(Plain(0), 0.0)])


def test_crops_zoom_as_far_as_the_picture_reaches() -> None:
    rows, columns = crop_of((100, 200), (64, 64), (0.5, 0.5), np.random.default_rng(0))
    assert (rows, columns.stop - columns.start) == (slice(0, 100), 100)
