"""Training samples and the batches made of them."""

from dataclasses import replace
from pathlib import Path

import torch

from engine.training.batches import make_batch
from engine.training.scene_bank import SceneBank
from engine.training.sources import WindowConfig
from tests.engine.training.tiny import TINY_BANK, TINY_TRAINING, assert_equal_batches, square_scenes

WINDOW = WindowConfig(side_px=32)


def test_a_sample_depends_on_its_step_and_position_alone(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    whole = make_batch(bank, TINY_TRAINING.batch, WINDOW, step=3, positions=range(4))
    halves = [make_batch(bank, TINY_TRAINING.batch, WINDOW, step=3, positions=half) for half in (range(2), range(2, 4))]
    assert torch.equal(whole.pixels_B3SS, torch.cat([half.pixels_B3SS for half in halves]))
    assert torch.equal(whole.targets_PLL, torch.cat([half.targets_PLL for half in halves]))
    assert torch.equal(whole.uniforms_RP3, torch.cat([half.uniforms_RP3 for half in halves], 1))
    another = make_batch(bank, TINY_TRAINING.batch, WINDOW, step=4, positions=range(4))
    assert not torch.equal(whole.pixels_B3SS, another.pixels_B3SS)


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
