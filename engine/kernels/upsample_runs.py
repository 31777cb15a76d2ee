"""Upsampling of a decoder's low-resolution logits to run-length masks, with each mask's box, area and stability.

The masks are those of the original post-processing ("Segment Anything", appendix B). It resizes logits bilinearly to
the model's square input, removes the padding and resizes bilinearly to the window's size. The threshold 0 then gives
the mask, and the thresholds +offset and -offset its stability. A float mask of a 2250 x 1500 image takes 13.5 MB; the
numba and Triton backends never make one. Bilinear values are convex combinations of logits, so a pixel needs no
evaluation if its low-resolution neighbours are all above +offset or all below -offset. About one pixel in a hundred is
left to evaluate. All backends give the same runs, boxes and scores.

Shape suffixes: N masks, R x C rows and columns of logits, L side of the decoder's whole output, S side of the model
input.
`boxes_incl_N4` are boxes with inclusive maxima, as in the original code; all other boxes are half-open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from engine.images import Frame
from storage import rle
from storage.rle import Rle

Backend = Literal["auto", "reference", "numba", "triton"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class UpsampledMasks:
    """N masks in the coordinates of the whole image, even if the logits covered only a window of the image."""

    rles: list[Rle]
    """Run lengths of each mask, for the whole image."""
    boxes_incl_N4: np.ndarray
    """Boxes of the masks, int64 (x0, y0, x1, y1) with inclusive maxima; zeros for an empty mask."""
    areas_N: np.ndarray
    """Areas of the masks in pixels, int64."""
    stability_N: np.ndarray
    """Number of window pixels above +offset divided by that above -offset, float32; 0 if the latter number is 0."""


def upsample_runs(
    logits_NRC: torch.Tensor,
    frame: Frame,
    *,
    low_side: int,
    stability_offset: float,
    backend: Backend = "auto",
) -> UpsampledMasks:
    """Upsample low-resolution logits to masks at the image's resolution.

    Args:
        logits_NRC: float32 logits. Rows and columns of the padding may be left out; at least
            `needed_low_hw(frame, low_side)` rows and columns are needed.
        low_side: side of the decoder's whole output (L).
        stability_offset: distance of the two stability thresholds from 0, in logits; at least 0.
        backend: "numba" is fast on the CPU; "triton" is for a GPU; "reference" is plain torch with one
            float mask at a time; "auto" is the fastest backend that can be imported for the logits' device.

    Raises:
        ValueError: There are too few rows or columns, the dtype is not float32, or the offset is negative.
        RuntimeError: The backend cannot run here.
    """
    # Check the arguments
    needed = needed_low_hw(frame, low_side)
    got = logits_NRC.shape
    if len(got) != 3 or logits_NRC.dtype != torch.float32:
        raise ValueError(f"got {logits_NRC.dtype} {list(got)}, expected float32 [N, R, C]")
    if got[1] < needed[0] or got[2] < needed[1] or max(got[1:]) > low_side:
        raise ValueError(f"got logits of {got[1]} x {got[2]}, expected from {needed} to {low_side} rows and columns")
    if stability_offset < 0:
        raise ValueError(f"got a stability offset of {stability_offset}, expected a distance of at least 0")

    # Scan the masks and collect the results
    scan = _scanner(backend, logits_NRC.device.type)
    found = scan(logits_NRC.detach(), frame, low_side, stability_offset)
    return UpsampledMasks(
        rles=[each.rle for each in found],
        boxes_incl_N4=np.array([each.box_4 for each in found], dtype=np.int64).reshape(-1, 4),
        areas_N=np.array([each.area_px for each in found], dtype=np.int64),
        stability_N=np.array([_ratio(each.above_high_px, each.above_low_px) for each in found], dtype=np.float32),
    )


def needed_low_hw(frame: Frame, low_side: int) -> tuple[int, int]:
    """Count the rows and columns of the decoder's output that contribute to the masks; all others are padding."""
    height, width = (int(low_rows(low_side, frame.model_side)[1][side - 1]) + 1 for side in frame.scaled_hw)
    return height, width


def low_rows(low_side: int, model_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the two low-resolution rows from which each row of the model input is interpolated.

    Returns:
        Index of the upper row and index of the lower row for each row of the model input, int64 [S] each.
    """
    taps = linear_taps(low_side, model_side)
    return taps.first_P, taps.second_P


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Inputs and weights of a bilinear resize along one axis.

    Output position p has the value weight0_P[p] * input[first_P[p]] + weight1_P[p] * input[second_P[p]]. Indices are
    int64, weights are float32.
    """

    first_P: np.ndarray
    second_P: np.ndarray
    weight0_P: np.ndarray
    weight1_P: np.ndarray


@lru_cache(maxsize=256)
def linear_taps(n_in: int, n_out: int) -> Taps:
    """Compute the inputs and weights of a bilinear resize from `n_in` to `n_out` positions.

    Inputs and weights equal those of torch's `interpolate` with align_corners=False, rounding included.
    """
    scale = np.float32(n_in) / np.float32(n_out)
    centre_P = np.arange(n_out, dtype=np.float32) + np.float32(0.5)
    # torch's compiled kernels fuse the multiplication and the subtraction: one rounding
    source_P = np.maximum((np.float64(scale) * centre_P.astype(np.float64) - 0.5).astype(np.float32), np.float32(0))
    first_P = np.minimum(source_P.astype(np.int64), n_in - 1)
    weight1_P = np.clip(source_P - first_P.astype(np.float32), 0, 1).astype(np.float32)
    return Taps(
        first_P=first_P,
        second_P=first_P + (first_P < n_in - 1),
        weight0_P=np.float32(1) - weight1_P,
        weight1_P=weight1_P,
    )


@dataclass(frozen=True, kw_only=True)
class ScannedMask:
    """Upsampled mask, with its box and pixel counts."""

    rle: Rle
    """Run lengths of the mask, for the whole image."""
    box_4: tuple[int, int, int, int]
    """Box (x0, y0, x1, y1) with inclusive maxima; zeros for an empty mask."""
    area_px: int
    """Number of pixels above 0."""
    above_high_px: int
    """Number of pixels above +offset."""
    above_low_px: int
    """Number of pixels above -offset."""


def scan_reference(logits_RC: torch.Tensor, frame: Frame, low_side: int, offset: float) -> ScannedMask:
    """Upsample the logits of one mask in torch: resize bilinearly to the model's input, then to the window.

    A pixel is foreground if its upsampled logit is above 0. Run lengths and box are in pixels of the whole image.
    """
    # Resize twice
    rows, columns = logits_RC.shape
    logits_LL = F.pad(logits_RC, (0, low_side - columns, 0, low_side - rows))
    side = frame.model_side
    padded_SS = F.interpolate(logits_LL[None, None], (side, side), mode="bilinear", align_corners=False)
    height, width = frame.scaled_hw
    window_HW = F.interpolate(padded_SS[..., :height, :width], frame.crop_hw, mode="bilinear", align_corners=False)[
        0, 0
    ]

    # Cut at 0 and encode
    x0, y0, x1, y1 = frame.crop_xyxy
    mask_HW = np.zeros(frame.image_hw, dtype=bool)
    mask_HW[y0:y1, x0:x1] = (window_HW > 0).cpu().numpy()
    runs = rle.encode(mask_HW)
    left, top, right, bottom = rle.box_xyxy(runs)
    area_px = rle.area(runs)
    return ScannedMask(
        rle=runs,
        box_4=(left, top, right - 1, bottom - 1) if area_px else (0, 0, 0, 0),
        area_px=area_px,
        above_high_px=int((window_HW > offset).sum()),
        above_low_px=int((window_HW > -offset).sum()),
    )


_Scan = Callable[[torch.Tensor, Frame, int, float], list[ScannedMask]]
"""Function that upsamples all masks of logits [N, R, C]."""


def _scanner(backend: Backend, device_type: str) -> _Scan:
    if backend == "auto":
        backend = fastest_backend(device_type)
    scanners = {"reference": lambda: _one_by_one(scan_reference), "numba": _numba_scan, "triton": _triton_scan}
    if backend not in scanners:
        raise ValueError(f"got backend {backend!r}, expected 'auto', {', '.join(map(repr, scanners))}")
    return scanners[backend]()


@lru_cache(maxsize=2)
def fastest_backend(device_type: str) -> Literal["reference", "numba", "triton"]:
    """Choose the fastest backend that can be imported for tensors on `device_type` ("cpu" or "cuda").

    The choice is logged once for each `device_type`.
    """
    if device_type == "cuda":
        try:
            _triton_scan()
        except RuntimeError as error:
            logger.warning("upsample_runs: masks leave the GPU one by one (%s)", error)
        else:
            logger.info("upsample_runs: triton")
            return "triton"
    try:
        _numba_scan()
    except RuntimeError as error:
        logger.warning("upsample_runs: plain torch, about 20 times slower (%s)", error)
        return "reference"
    logger.info("upsample_runs: numba")
    return "numba"


def _one_by_one(scan: Callable[[torch.Tensor, Frame, int, float], ScannedMask]) -> _Scan:
    return lambda logits_NRC, *settings: [scan(logits_RC, *settings) for logits_RC in logits_NRC]


def _numba_scan() -> _Scan:
    try:
        from engine.kernels.upsample_runs_numba import scan_numba
    except ImportError as error:
        raise RuntimeError(f"the numba backend of upsample_runs cannot run: {error}; install numba") from error
    one_by_one = _one_by_one(scan_numba)
    return lambda logits_NRC, *settings: one_by_one(logits_NRC.cpu(), *settings)


def _triton_scan() -> _Scan:
    try:
        from engine.kernels.upsample_runs_triton import scan_triton
    except ImportError as error:
        raise RuntimeError(f"the Triton backend of upsample_runs cannot run: {error}; install triton") from error
    return scan_triton


def _ratio(part: int, whole: int) -> np.float32:
    return np.float32(part) / np.float32(whole) if whole else np.float32(0)
