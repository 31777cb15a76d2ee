"""Low-resolution logits to runs: the Triton backend against the reference."""

import pytest
import torch
import torch.nn.functional as F

from engine.images import Frame
from engine.kernels import upsample_runs_triton as module
from engine.kernels.upsample_runs import needed_low_hw
from storage import rle
from tests.engine.kernels.upsampling import Geometry, assert_same, make_frame, run

GEOMETRIES: dict[str, Geometry] = {
    "landscape": ((40, 70), None, 64, 16),
    "portrait": ((70, 33), None, 64, 16),
    "as large as the model": ((32, 32), None, 32, 8),
    "smaller than the model": ((37, 23), None, 128, 32),
    "one pixel wide": ((70, 1), None, 64, 16),
    "one pixel high": ((1, 70), None, 64, 16),
    "one pixel": ((1, 1), None, 64, 16),
    "crop at the upper left": ((90, 120), (0, 0, 60, 31), 64, 16),
    "crop inside, a multiple of a word high": ((90, 120), (31, 13, 80, 77), 64, 16),
    "crop at the lower right": ((90, 120), (60, 50, 120, 90), 64, 16),
    "crop of full height": ((32, 120), (20, 0, 85, 32), 64, 16),
    "crop of full height at the right": ((32, 120), (60, 0, 120, 32), 64, 16),
    "crop of full width": ((90, 60), (0, 20, 60, 60), 64, 16),
}


def logits(side: int, count: int = 2, *, seed: int = 0) -> torch.Tensor:
    """Smooth masks and, as the last one, noise."""
    noise = torch.randn(count, side, side, generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool2d(F.pad(noise[:, None], (3, 3, 3, 3), mode="replicate"), 7, stride=1)[:, 0] * 30
    smooth[-1] = noise[-1] * 3
    return smooth


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_triton_and_torch_give_the_same_runs_boxes_areas_and_stability(geometry: str) -> None:
    side, frame = GEOMETRIES[geometry][3], make_frame(GEOMETRIES[geometry])
    values = logits(side)
    assert_same(run(values, frame, side, "triton"), run(values, frame, side, "reference"))


@pytest.mark.parametrize("crop", [None, (0, 0, 50, 20), (10, 0, 50, 30), (10, 9, 50, 30)])
def test_empty_full_undecided_missing_and_infinite_masks(crop: tuple[int, int, int, int] | None) -> None:
    frame = Frame(crop_xyxy=crop or (0, 0, 50, 30), image_hw=(30, 50), model_side=64)
    values = torch.stack([torch.full((16, 16), level) for level in (-9.0, 9.0, 0.5, torch.nan, torch.inf)])
    found = run(values, frame, 16, "triton")
    assert_same(found, run(values, frame, 16, "numba"))
    height, width = frame.crop_hw
    assert found.areas_N[:4].tolist() == [0, height * width, height * width, 0]
    assert found.stability_N[:4].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert all(rle.area(runs) == area for runs, area in zip(found.rles, found.areas_N, strict=True))


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_any_stability_offset_agrees(offset: float) -> None:
    frame = Frame.whole((40, 60), 64)
    assert_same(run(logits(16), frame, 16, "triton", offset), run(logits(16), frame, 16, "reference", offset))


def test_no_masks_give_no_masks() -> None:
    assert run(torch.empty(0, 16, 16), Frame.whole((50, 70), 64), 16, "triton").rles == []


def test_views_without_the_rows_of_the_padding_give_the_same_masks() -> None:
    frame = Frame.whole((30, 60), 64)
    rows, columns = needed_low_hw(frame, 16)
    values = logits(16).transpose(1, 2)
    assert_same(run(values[:, :rows, :columns], frame, 16, "triton"), run(values, frame, 16, "reference"))


def test_masks_too_many_for_memory_are_made_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Frame.whole((20, 30), 64)
    whole = run(logits(16, 5), frame, 16, "triton")
    monkeypatch.setattr(module, "_BITS_AT_ONCE_BYTES", 2 * 4 * 30)
    assert_same(run(logits(16, 5), frame, 16, "triton"), whole)


def test_positions_beyond_32_bits_are_exact() -> None:
    """A window at the end of an image of more than 2^31 pixels; the image itself is never made."""
    frame = Frame(crop_xyxy=(63_980, 63_990, 64_000, 64_000), image_hw=(64_000, 64_000), model_side=64)
    values = logits(16)
    assert_same(run(values, frame, 16, "triton"), run(values, frame, 16, "numba"))
