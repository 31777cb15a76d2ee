"""Low-resolution logits to runs: the numba backend against the reference, and both against the definition."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.images import Frame
from engine.kernels import upsample_runs as module
from engine.kernels.upsample_runs import Backend, needed_low_hw, upsample_runs
from storage import rle
from tests.engine.kernels.upsampling import GEOMETRIES, assert_same, make_frame, run


def logits(kind: str, side: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(4, 1, side, side, generator=generator)
    if kind == "smooth":
        return F.avg_pool2d(F.pad(noise, (4, 4, 4, 4), mode="replicate"), 9, stride=1)[:, 0] * 40
    if kind == "soft":
        return F.avg_pool2d(F.pad(noise, (2, 2, 2, 2), mode="replicate"), 5, stride=1)[:, 0] * 4
    return noise[:, 0] * 3


@pytest.mark.parametrize("kind", ["smooth", "soft", "ragged"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_numba_and_torch_give_the_same_runs_boxes_areas_and_stability(geometry: str, kind: str) -> None:
    side, frame = GEOMETRIES[geometry][3], make_frame(GEOMETRIES[geometry])
    values = logits(kind, side)
    assert_same(run(values, frame, side, "numba"), run(values, frame, side, "reference"))


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_masks_are_two_bilinear_resizes_cut_at_zero_inside_the_crop(backend: Backend) -> None:
    frame = Frame(crop_xyxy=(20, 10, 140, 90), image_hw=(100, 150), model_side=64)
    values = logits("soft", 16)
    found = run(values, frame, 16, backend)
    model = F.interpolate(values[None], (64, 64), mode="bilinear", align_corners=False)[..., :43, :64]
    window = F.interpolate(model, (80, 120), mode="bilinear", align_corners=False)[0].numpy()
    for i, runs in enumerate(found.rles):
        mask = rle.decode(runs)
        assert mask.shape == (100, 150)
        assert np.array_equal(mask[10:90, 20:140], window[i] > 0)
        assert mask.sum() == (window[i] > 0).sum() == found.areas_N[i]
        x0, y0, x1, y1 = rle.box_xyxy(runs)
        assert found.boxes_incl_N4[i].tolist() == [x0, y0, x1 - 1, y1 - 1]
        assert found.stability_N[i] == np.float32((window[i] > 1).sum()) / np.float32((window[i] > -1).sum())


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_empty_full_and_undecided_masks(backend: Backend) -> None:
    frame = Frame.whole((50, 70), 64)
    values = torch.stack([torch.full((16, 16), level) for level in (-9.0, 9.0, 0.5, -0.5, 0.0)])
    found = run(values, frame, 16, backend)
    assert found.areas_N.tolist() == [0, 3500, 3500, 0, 0]
    assert found.stability_N.tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert found.boxes_incl_N4.tolist() == [[0, 0, 0, 0], [0, 0, 69, 49], [0, 0, 69, 49], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert [runs.counts.tolist() for runs in found.rles] == [[3500], [0, 3500], [0, 3500], [3500], [3500]]


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_no_masks_give_no_masks(backend: Backend) -> None:
    found = run(torch.empty(0, 16, 16), Frame.whole((50, 70), 64), 16, backend)
    assert (found.rles, found.boxes_incl_N4.shape, found.areas_N.shape) == ([], (0, 4), (0,))


@pytest.mark.parametrize("image_hw", [(300, 451), (451, 300), (200, 1)])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_rows_and_columns_of_the_padding_may_be_left_out(backend: Backend, image_hw: tuple[int, int]) -> None:
    frame = Frame.whole(image_hw, 128)
    rows, columns = needed_low_hw(frame, 32)
    values = logits("soft", 32)
    cut = run(values[:, :rows, :columns], frame, 32, backend)
    assert_same(cut, run(values, frame, 32, backend))
    with pytest.raises(ValueError, match="expected from"):
        run(values[:, : rows - 1], frame, 32, backend)


def test_views_that_are_not_contiguous_give_the_same_masks() -> None:
    frame = Frame.whole((90, 120), 128)
    values = logits("soft", 32)
    assert_same(
        run(values.transpose(1, 2), frame, 32, "numba"), run(values.transpose(1, 2).clone(), frame, 32, "reference")
    )


@pytest.mark.parametrize("offset", [0.0, 0.3, 5.0])
def test_any_stability_offset_agrees(offset: float) -> None:
    frame = Frame.whole((200, 260), 128)
    values = logits("soft", 32)
    assert_same(run(values, frame, 32, "numba", offset), run(values, frame, 32, "reference", offset))


def test_infinite_and_missing_logits_agree() -> None:
    frame = Frame.whole((200, 260), 128)
    values = logits("smooth", 32)
    values[0, 5:9, 5:9] = torch.nan
    values[1, 3:20, 3:20] = 1e30
    ours, theirs = run(values, frame, 32, "numba"), run(values, frame, 32, "reference")
    assert_same(ours, theirs)


def test_positions_beyond_32_bits_of_a_huge_image_are_exact() -> None:
    frame = Frame.whole((64_000, 64_000), 64)  # 4.1e9 pixels: more than 2^31
    found = run(torch.full((1, 16, 16), 9.0), frame, 16, "numba")
    assert found.areas_N.tolist() == [64_000**2]
    assert rle.area(found.rles[0]) == 64_000**2


def test_asking_for_numba_where_it_is_missing_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.upsample_runs_numba", None)
    with pytest.raises(RuntimeError, match="numba"):
        run(logits("soft", 16), Frame.whole((20, 20), 64), 16, "numba")


def test_auto_says_once_which_backend_it_took(caplog: pytest.LogCaptureFixture) -> None:
    module.fastest_backend.cache_clear()
    caplog.set_level("INFO", logger=module.__name__)
    for _ in range(2):
        run(logits("soft", 16), Frame.whole((20, 20), 64), 16, "auto")
    assert [record.message for record in caplog.records] == ["upsample_runs: numba"]


def test_asking_for_triton_where_it_cannot_run_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.upsample_runs_triton", None)
    with pytest.raises(RuntimeError, match="triton"):
        run(logits("soft", 16), Frame.whole((20, 20), 64), 16, "triton")


def test_on_a_gpu_without_triton_masks_are_made_on_the_cpu_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.upsample_runs_triton", None)
    module.fastest_backend.cache_clear()
    assert module.fastest_backend("cuda") == "numba"
    assert "Triton" in caplog.text
    module.fastest_backend.cache_clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits_NRC": torch.zeros(2, 16, 16, dtype=torch.float64)}, "expected float32"),
        ({"logits_NRC": torch.zeros(16, 16)}, "expected float32"),
        ({"stability_offset": -1.0}, "at least 0"),
        ({"backend": "cuda"}, "expected 'auto'"),
    ],
)
def test_wrong_input_is_refused_with_what_was_expected(change: dict[str, Any], message: str) -> None:
    values = {"logits_NRC": torch.zeros(2, 16, 16), "low_side": 16, "stability_offset": 1.0} | change
    with pytest.raises(ValueError, match=message):
        upsample_runs(values.pop("logits_NRC"), Frame.whole((20, 20), 64), **values)
