"""The automatic mask generator of "Segment Anything" (section 4 and appendix B): a photograph in, its masks out.

A regular grid of points is asked of the whole photograph and, by preset, of overlapping crops cut from its original
pixels. What comes out is filtered on predicted IoU before anything is upscaled, then on stability, crop edges and area;
duplicates go in two rounds of box NMS, within a crop by predicted IoU and across crops by zoom; small islands and holes
are cleaned. Memory stays flat: a batch of points, and the run lengths of what survived.

P points, M = 3 masks of a point, N masks, K masks kept, R x C rows and columns of a low-resolution mask, E side of the
embedding, C its channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engine.automatic.config import PRESETS, GenerateConfig, Precision
from engine.automatic.diagnostics import Diagnostics
from engine.automatic.filters import is_confident, is_stable, is_whole
from engine.automatic.masks import MaskBatch
from engine.images import Frame, check_image
from engine.kernels.nms import box_nms
from engine.kernels.regions import clean_small_regions
from engine.kernels.upsample_runs import Backend, fastest_backend, needed_low_hw, upsample_runs
from engine.model.card import ModelCard
from engine.model.grid_decoder import DecoderKind, PointDecoder, make_point_decoder
from engine.model.sam import Sam
from engine.model.weights import Model
from engine.prompts import crop_windows, point_grid
from storage import rle
from storage.rle import Rle


@dataclass(frozen=True, kw_only=True)
class GeneratedMask:
    """One mask of a photograph, in its coordinates."""

    rle: Rle
    box_xyxy: tuple[int, int, int, int]
    """Half-open."""
    area_px: int
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]
    """The prompt."""
    crop_xyxy: tuple[int, int, int, int]
    """The window it was made in, half-open."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """The masks of one photograph, and what became of the others."""

    masks: list[GeneratedMask]
    diagnostics: Diagnostics


@torch.inference_mode()
def generate_masks(
    model: Model,
    image_HW3: np.ndarray,
    config: GenerateConfig = PRESETS["grid"],
    *,
    embeddings: Tensor | None = None,
    decoder: DecoderKind = "auto",
    kernels: Backend = "auto",
) -> Generated:
    """All masks of a photograph, uint8 RGB [H, W, 3].

    Args:
        embeddings: the photograph's embedding [1, C, E, E], where it is at hand already; only without crops.
        decoder: "grid" shares work between the points, "fused" does so with kernels for a GPU (untested there as yet),
            "plain" asks `Sam.decode`: the same function, as tests show. "auto" is the fastest where the network is.
        kernels: who turns logits into runs and compares boxes; "auto" is the fastest where the network is.

    Raises:
        ValueError: not such an image, or embeddings that do not fit the network or the crops.
    """
    check_image(image_HW3)
    image_hw = (image_HW3.shape[0], image_HW3.shape[1])
    windows = crop_windows(image_hw, config.crop_layers, config.crop_overlap_ratio)
    if embeddings is not None and config.crop_layers:
        raise ValueError(f"got one embedding for {len(windows)} crops, expected crop_layers=0 with embeddings")
    thresholds = _thresholds(config, model.card)
    if kernels == "auto":
        kernels = fastest_backend(next(model.sam.parameters()).device.type)
    tally = _Tally()
    per_crop = []
    side = model.sam.config.input_side
    frames = [Frame(crop_xyxy=window.xyxy, image_hw=image_hw, model_side=side) for window in windows]
    with _computing_in(config.precision, model.sam):
        encoded = iter([embeddings]) if embeddings is not None else _encode(model.sam, image_HW3, frames, config)
        for window, frame, embeddings_1CEE in zip(windows, frames, encoded, strict=True):
            asked = make_point_decoder(decoder, model.sam, embeddings_1CEE)
            points_P2 = _points_of(frame, config.points_in_layer(window.layer))
            per_crop.append(_masks_of_crop(asked, frame, points_P2, config, thresholds, tally, kernels))
    batch = _once_across_crops(MaskBatch.concatenate(per_crop), config, tally, kernels)
    batch = _clean(batch, config, tally, kernels)
    return Generated(masks=_records(batch), diagnostics=tally.diagnostics(kept=len(batch)))


def _masks_of_crop(
    decoder: PointDecoder,
    frame: Frame,
    points_P2: np.ndarray,
    config: GenerateConfig,
    thresholds: _Thresholds,
    tally: _Tally,
    kernels: Backend,
) -> MaskBatch:
    """The distinct masks of one window: ask in batches of points, filter each, then box NMS by predicted IoU."""
    size = config.points_per_batch
    batches = [
        _masks_of_points(decoder, frame, points_P2[start : start + size], config, thresholds, tally, kernels)
        for start in range(0, len(points_P2), size)
    ]
    batch = MaskBatch.concatenate(batches)
    distinct = _distinct(batch, batch.predicted_iou_N, config.box_nms_threshold, kernels)
    return tally.keep(batch, distinct, "duplicate_in_crop")


def _masks_of_points(
    decoder: PointDecoder,
    frame: Frame,
    points_P2: np.ndarray,
    config: GenerateConfig,
    thresholds: _Thresholds,
    tally: _Tally,
    kernels: Backend,
) -> MaskBatch:
    """The masks of a few points that pass every filter; only those of confident predictions are ever upscaled."""
    prediction = decoder.predict(torch.from_numpy(frame.points_to_model(points_P2)))
    iou_PM = prediction.iou_PM.float().cpu().numpy()
    confident_PM = is_confident(iou_PM, thresholds.predicted_iou)
    tally.count_predictions(iou_PM, confident_PM)
    if not confident_PM.any():
        return MaskBatch.concatenate([])

    low_side = decoder.low_side
    logits_KRC = decoder.mask_logits(prediction, torch.from_numpy(confident_PM), needed_low_hw(frame, low_side)).float()
    offset = config.stability_offset
    drawn = upsample_runs(logits_KRC, frame, low_side=low_side, stability_offset=offset, backend=kernels)
    batch = MaskBatch(
        rles=drawn.rles,
        boxes_N4=drawn.boxes_N4,
        areas_N=drawn.areas_N,
        predicted_iou_N=iou_PM[confident_PM],
        stability_N=drawn.stability_N,
        points_N2=points_P2[np.nonzero(confident_PM)[0]],
        crops_N4=np.tile(np.array(frame.crop_xyxy, dtype=np.int64), (len(drawn.rles), 1)),
    )
    tally.best_stability = max(tally.best_stability, float(batch.stability_N.max()))
    batch = tally.keep(batch, is_stable(batch.stability_N, thresholds.stability), "failed_stability")
    batch = tally.keep(batch, is_whole(batch.boxes_N4, frame.crop_xyxy, frame.image_hw), "cut_by_crop_edge")
    return _within_area(batch, config, tally)


def _within_area(batch: MaskBatch, config: GenerateConfig, tally: _Tally) -> MaskBatch:
    batch = tally.keep(batch, batch.areas_N > 0, "empty")
    if config.max_area_fraction is not None and len(batch):
        limit_px = config.max_area_fraction * batch.rles[0].height * batch.rles[0].width
        batch = tally.keep(batch, batch.areas_N < limit_px, "covers_image")
    batch = tally.keep(batch, batch.areas_N >= config.min_mask_area_px, "too_small")
    if config.max_mask_area_px is not None:
        batch = tally.keep(batch, batch.areas_N <= config.max_mask_area_px, "too_large")
    return batch


def _once_across_crops(batch: MaskBatch, config: GenerateConfig, tally: _Tally, kernels: Backend) -> MaskBatch:
    """Box NMS over all windows; what was seen from nearer, in a smaller window, goes first."""
    if config.crop_layers == 0:
        return batch
    zoom_N = 1 / (batch.crops_N4[:, 2:] - batch.crops_N4[:, :2]).prod(axis=1)
    distinct = _distinct(batch, zoom_N, config.crop_nms_threshold, kernels)
    return tally.keep(batch, distinct, "duplicate_across_crops")


def _clean(batch: MaskBatch, config: GenerateConfig, tally: _Tally, kernels: Backend) -> MaskBatch:
    """Small islands and holes go; then box NMS again, in which masks that needed no cleaning go first."""
    if config.min_region_px == 0:
        return batch
    cleaned = [clean_small_regions(runs, config.min_region_px) for runs in batch.rles]
    changed_N = np.array([each.is_changed for each in cleaned], dtype=bool)
    solid_N = np.array([each.largest_island_px >= config.min_region_px for each in cleaned], dtype=bool)
    tally.counts["cleaned"] += int((changed_N & solid_N).sum())
    batch = replace(
        batch,
        rles=[each.rle for each in cleaned],
        boxes_N4=np.array([_inclusive_box(each.rle) for each in cleaned], dtype=np.int64).reshape(-1, 4),
        areas_N=np.array([rle.area(each.rle) for each in cleaned], dtype=np.int64),
    )
    batch, changed_N = tally.keep(batch, solid_N, "dissolved"), changed_N[solid_N]
    threshold = max(config.box_nms_threshold, config.crop_nms_threshold)
    distinct = _distinct(batch, ~changed_N, threshold, kernels)
    return _within_area(tally.keep(batch, distinct, "duplicate_after_cleanup"), config, tally)


def _distinct(batch: MaskBatch, ranks_N: np.ndarray, threshold: float, kernels: Backend) -> np.ndarray:
    """Indices of the masks that box NMS leaves."""
    backend: Literal["triton", "reference"] = "triton" if kernels == "triton" else "reference"
    return box_nms(batch.boxes_N4, ranks_N, threshold, backend=backend)


def _records(batch: MaskBatch) -> list[GeneratedMask]:
    return [
        GeneratedMask(
            rle=runs,
            box_xyxy=rle.box_xyxy(runs),
            area_px=int(batch.areas_N[i]),
            predicted_iou=float(batch.predicted_iou_N[i]),
            stability_score=float(batch.stability_N[i]),
            point_xy=(float(batch.points_N2[i, 0]), float(batch.points_N2[i, 1])),
            crop_xyxy=tuple(batch.crops_N4[i].tolist()),
        )
        for i, runs in enumerate(batch.rles)
    ]


def _computing_in(precision: Precision, sam: Sam) -> torch.autocast:
    """While it lasts, "bf16" makes matrix products and convolutions bfloat16; weights stay as they are.

    Converted weights are not kept: torch keeps them for all threads together, and a photograph on a CUDA stream of its
    own (`engine.automatic.overlap`) would read what another stream has yet to write.
    """
    device_type = next(iter(sam.parameters())).device.type
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def _encode(sam: Sam, image_HW3: np.ndarray, frames: Sequence[Frame], config: GenerateConfig) -> Iterator[Tensor]:
    """The embedding [1, C, E, E] of each crop, in order; a batch of crops is in memory at a time."""
    dtype = next(iter(sam.parameters())).dtype
    for start in range(0, len(frames), config.crops_per_batch):
        crops = [frame.crop(image_HW3) for frame in frames[start : start + config.crops_per_batch]]
        yield from sam.encode(torch.stack([sam.preprocess(crop_HW3) for crop_HW3 in crops]).to(dtype)).split(1)


def _points_of(frame: Frame, points_per_side: int) -> np.ndarray:
    """The grid over a window, in the photograph's pixels; float64 [P, 2]."""
    height, width = frame.crop_hw
    return point_grid(points_per_side) * (width, height) + np.array(frame.crop_xyxy[:2])


def _inclusive_box(runs: Rle) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = rle.box_xyxy(runs)
    return (x0, y0, x1 - 1, y1 - 1) if x1 > x0 else (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class _Thresholds:
    predicted_iou: float
    stability: float


def _thresholds(config: GenerateConfig, card: ModelCard) -> _Thresholds:
    predicted_iou, stability = config.predicted_iou_threshold, config.stability_threshold
    return _Thresholds(
        predicted_iou=card.predicted_iou_threshold if predicted_iou is None else predicted_iou,
        stability=card.stability_threshold if stability is None else stability,
    )


class _Tally:
    """Running counts of one photograph."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.best_predicted_iou = self.best_stability = 0.0

    def count_predictions(self, iou_PM: np.ndarray, confident_PM: np.ndarray) -> None:
        self.counts["candidates"] += iou_PM.size
        self.counts["failed_predicted_iou"] += int((~confident_PM).sum())
        self.best_predicted_iou = max(self.best_predicted_iou, float(iou_PM.max()))

    def keep(self, batch: MaskBatch, index: np.ndarray, filter_name: str) -> MaskBatch:
        """The masks named by a bool [N] or int [K] index; the others are the filter's."""
        kept = batch[index]
        self.counts[filter_name] += len(batch) - len(kept)
        return kept

    def diagnostics(self, *, kept: int) -> Diagnostics:
        bests = {"best_predicted_iou": self.best_predicted_iou, "best_stability": self.best_stability}
        return Diagnostics(**self.counts, **bests, kept=kept)  # type: ignore[arg-type]
