"""The automatic mask generator of "Segment Anything" (section 4 and appendix B): it makes all masks of an image.

The prompts are a regular grid of points on the whole image and, depending on the preset, on overlapping crops of the
image at its original resolution. Candidate masks are filtered by predicted IoU before they are upscaled, then by
stability, crop edges and area. Box NMS removes duplicates in two rounds: within a crop, the mask of higher predicted
IoU stays; across crops, the mask of the smaller crop stays. Small islands are removed and small holes are filled.
Memory stays flat, because it holds only one batch of points and the run lengths of the masks kept so far.

Shape letters: P points, M = 3 masks of a point, N masks, K masks kept, R x C rows and columns of a low-resolution mask,
E side of the embedding, C its channels. `boxes_incl_N4` are boxes with inclusive maxima, all other boxes are half-open.
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
from engine.automatic.filters import Filter, is_confident, is_stable, is_whole
from engine.automatic.masks import MaskBatch
from engine.images import Frame, check_image
from engine.kernels.nms import box_nms
from engine.kernels.regions import clean_small_regions
from engine.kernels.upsample_runs import Backend, fastest_backend, needed_low_hw, upsample_runs
from engine.model.grid_decoder import DecoderKind, PointDecoder, make_point_decoder
from engine.model.sam import Sam
from engine.model.weights import Model
from engine.prompts import crop_windows, point_grid
from storage import rle
from storage.rle import Rle


@dataclass(frozen=True, kw_only=True)
class GeneratedMask:
    """One mask that the automatic generator made, in the coordinates of its image."""

    rle: Rle
    box_xyxy: tuple[int, int, int, int]
    """Tight box around the mask, half-open, in pixels."""
    area_px: int
    predicted_iou: float
    """Network's own estimate of the mask's IoU with the object."""
    stability_score: float
    """Stability in [0, 1]: IoU of the mask cut at a higher and at a lower threshold."""
    point_xy: tuple[float, float]
    """Point that prompted the mask, in image pixels."""
    crop_xyxy: tuple[int, int, int, int]
    """Window of the image in which the mask was made, half-open, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Masks generated in one image, and counts of the candidate masks that were kept or removed."""

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
    """Generate all masks of an image, uint8 RGB [H, W, 3].

    Args:
        embeddings: embedding of the image [1, C, E, E], if the caller has computed it already; allowed only with
            `crop_layers` of 0. None means that the network encodes the image.
        decoder: implementation of the mask decoder. "plain" calls `Sam.decode`. "grid" computes once what all points
            share. "fused" is "grid" with Triton kernels for a GPU. The three give the same result up to rounding.
            "auto" is "grid" or "fused", whichever is faster on the network's device.
        kernels: backend of two steps: turning logits into run lengths, and comparing boxes to find duplicates. "auto"
            is the fastest backend on the network's device.

    Raises:
        ValueError: `image_HW3` is not a uint8 RGB image, or `embeddings` does not fit the network or is given with
            crops.
    """
    # Check the input and resolve what "auto" and None stand for
    check_image(image_HW3)
    image_hw = (image_HW3.shape[0], image_HW3.shape[1])
    windows = crop_windows(image_hw, config.crop_layers, config.crop_overlap_ratio)
    if embeddings is not None and config.crop_layers:
        raise ValueError(f"got one embedding for {len(windows)} crops, expected crop_layers=0 with embeddings")
    context = _make_context(model, config, kernels)

    # Encode each crop, decode the grid of points on it, filter, and remove duplicates within the crop
    side = model.sam.config.input_side
    frames = [Frame(crop_xyxy=window.xyxy, image_hw=image_hw, model_side=side) for window in windows]
    per_crop = []
    with _autocast(config.precision, model.sam):
        encoded = iter([embeddings]) if embeddings is not None else _encode(model.sam, image_HW3, frames, config)
        for window, frame, embeddings_1CEE in zip(windows, frames, encoded, strict=True):
            point_decoder = make_point_decoder(decoder, model.sam, embeddings_1CEE)
            points_P2 = _grid_points(frame, config.points_in_layer(window.layer))
            per_crop.append(_mask_crop(context, point_decoder, frame, points_P2))

    # Remove duplicates across crops, then clean what is left
    batch = _deduplicate_across_crops(context, MaskBatch.concatenate(per_crop))
    batch = _clean(context, batch)
    return Generated(masks=_records(batch), diagnostics=context.counts.diagnostics(kept=len(batch)))


class _FilterCounts:
    """Running counts of one image's candidates: how many there are, and how many each filter removed."""

    def __init__(self) -> None:
        self.taken: Counter[Filter] = Counter()
        self.candidates = self.cleaned = 0
        self.best_predicted_iou = self.best_stability = 0.0

    def count_predictions(self, iou_PM: np.ndarray, confident_PM: np.ndarray) -> None:
        """Count the candidates of a batch of points, and those that the filter on predicted IoU removes."""
        self.candidates += iou_PM.size
        self.taken[Filter.FAILED_PREDICTED_IOU] += int((~confident_PM).sum())
        self.best_predicted_iou = max(self.best_predicted_iou, float(iou_PM.max()))

    def keep(self, batch: MaskBatch, index: np.ndarray, taken_by: Filter) -> MaskBatch:
        """Return the masks that a bool [N] or int [K] index selects, and count the others as removed by the filter."""
        kept = batch[index]
        self.taken[taken_by] += len(batch) - len(kept)
        return kept

    def diagnostics(self, *, kept: int) -> Diagnostics:
        """Make the image's diagnostics from the counts and the number of masks kept."""
        return Diagnostics(
            candidates=self.candidates,
            taken=self.taken,
            kept=kept,
            cleaned=self.cleaned,
            best_predicted_iou=self.best_predicted_iou,
            best_stability=self.best_stability,
        )


@dataclass(frozen=True, kw_only=True)
class _Context:
    """Values that all steps for one image share: settings, the values that "auto" and None stand for, and counts."""

    config: GenerateConfig
    predicted_iou_threshold: float
    stability_threshold: float
    backend: Backend
    counts: _FilterCounts


def _make_context(model: Model, config: GenerateConfig, backend: Backend) -> _Context:
    predicted_iou, stability = config.predicted_iou_threshold, config.stability_threshold
    device_type = next(model.sam.parameters()).device.type
    return _Context(
        config=config,
        predicted_iou_threshold=model.card.predicted_iou_threshold if predicted_iou is None else predicted_iou,
        stability_threshold=model.card.stability_threshold if stability is None else stability,
        backend=fastest_backend(device_type) if backend == "auto" else backend,
        counts=_FilterCounts(),
    )


def _mask_crop(context: _Context, decoder: PointDecoder, frame: Frame, points_P2: np.ndarray) -> MaskBatch:
    """Make the distinct masks of one window: decode batches of points, filter each batch, and remove duplicates.

    Of two masks with nearly the same box, the one of higher predicted IoU stays.
    """
    size = context.config.points_per_batch
    batches = [
        _mask_points(context, decoder, frame, points_P2[start : start + size])
        for start in range(0, len(points_P2), size)
    ]
    batch = MaskBatch.concatenate(batches)
    distinct = _distinct(context, batch, batch.predicted_iou_N, context.config.box_nms_threshold)
    return context.counts.keep(batch, distinct, Filter.DUPLICATE_IN_CROP)


def _mask_points(context: _Context, decoder: PointDecoder, frame: Frame, points_P2: np.ndarray) -> MaskBatch:
    """Make the masks of a few points, and return those that pass every filter."""
    counts = context.counts

    # Filter by predicted IoU: only masks of confident predictions are ever upscaled
    prediction = decoder.predict(torch.from_numpy(frame.points_to_model(points_P2)))
    iou_PM = prediction.iou_PM.float().cpu().numpy()
    confident_PM = is_confident(iou_PM, context.predicted_iou_threshold)
    counts.count_predictions(iou_PM, confident_PM)
    if not confident_PM.any():
        return MaskBatch.concatenate([])

    # Upscale the logits straight to run lengths, boxes, areas and stability
    low_side = decoder.low_side
    logits_KRC = decoder.mask_logits(prediction, torch.from_numpy(confident_PM), needed_low_hw(frame, low_side)).float()
    offset = context.config.stability_offset
    upsampled = upsample_runs(logits_KRC, frame, low_side=low_side, stability_offset=offset, backend=context.backend)
    batch = MaskBatch(
        rles=upsampled.rles,
        boxes_incl_N4=upsampled.boxes_incl_N4,
        areas_N=upsampled.areas_N,
        predicted_iou_N=iou_PM[confident_PM],
        stability_N=upsampled.stability_N,
        points_N2=points_P2[np.nonzero(confident_PM)[0]],
        crops_N4=np.tile(np.array(frame.crop_xyxy, dtype=np.int64), (len(upsampled.rles), 1)),
    )

    # Filter by stability, crop edges and area
    counts.best_stability = max(counts.best_stability, float(batch.stability_N.max()))
    stable_N = is_stable(batch.stability_N, context.stability_threshold)
    batch = counts.keep(batch, stable_N, Filter.FAILED_STABILITY)
    whole_N = is_whole(batch.boxes_incl_N4, frame.crop_xyxy, frame.image_hw)
    batch = counts.keep(batch, whole_N, Filter.CUT_BY_CROP_EDGE)
    return _within_area(context, batch)


def _within_area(context: _Context, batch: MaskBatch) -> MaskBatch:
    """Keep the masks whose area is within the limits of the settings."""
    config, counts = context.config, context.counts
    batch = counts.keep(batch, batch.areas_N > 0, Filter.EMPTY)
    if config.max_area_fraction is not None and len(batch):
        limit_px = config.max_area_fraction * batch.rles[0].height * batch.rles[0].width
        batch = counts.keep(batch, batch.areas_N < limit_px, Filter.COVERS_IMAGE)
    batch = counts.keep(batch, batch.areas_N >= config.min_mask_area_px, Filter.TOO_SMALL)
    if config.max_mask_area_px is not None:
        batch = counts.keep(batch, batch.areas_N <= config.max_mask_area_px, Filter.TOO_LARGE)
    return batch


def _deduplicate_across_crops(context: _Context, batch: MaskBatch) -> MaskBatch:
    """Remove duplicates by box NMS over all windows; of two duplicates, the mask from the smaller window stays."""
    if context.config.crop_layers == 0:
        return batch
    zoom_N = 1 / (batch.crops_N4[:, 2:] - batch.crops_N4[:, :2]).prod(axis=1)
    distinct = _distinct(context, batch, zoom_N, context.config.crop_nms_threshold)
    return context.counts.keep(batch, distinct, Filter.DUPLICATE_ACROSS_CROPS)


def _clean(context: _Context, batch: MaskBatch) -> MaskBatch:
    """Remove small islands and fill small holes, then remove duplicates by box NMS.

    Of two duplicates, a mask that needed no cleaning stays.
    """
    config, counts = context.config, context.counts
    if config.min_region_px == 0:
        return batch

    # Clean each mask
    cleaned = [clean_small_regions(runs, config.min_region_px) for runs in batch.rles]
    changed_N = np.array([each.is_changed for each in cleaned], dtype=bool)
    solid_N = np.array([each.largest_island_px >= config.min_region_px for each in cleaned], dtype=bool)
    counts.cleaned += int((changed_N & solid_N).sum())
    batch = replace(
        batch,
        rles=[each.rle for each in cleaned],
        boxes_incl_N4=np.array([_inclusive_box(each.rle) for each in cleaned], dtype=np.int64).reshape(-1, 4),
        areas_N=np.array([rle.area(each.rle) for each in cleaned], dtype=np.int64),
    )

    # Filter again: masks have changed their boxes and areas
    batch, changed_N = counts.keep(batch, solid_N, Filter.DISSOLVED), changed_N[solid_N]
    threshold = max(config.box_nms_threshold, config.crop_nms_threshold)
    distinct = _distinct(context, batch, ~changed_N, threshold)
    return _within_area(context, counts.keep(batch, distinct, Filter.DUPLICATE_AFTER_CLEANUP))


def _distinct(context: _Context, batch: MaskBatch, ranks_N: np.ndarray, threshold: float) -> np.ndarray:
    """Return the indices of the masks that box NMS keeps; of two duplicates, the one of higher rank stays."""
    backend: Literal["triton", "reference"] = "triton" if context.backend == "triton" else "reference"
    return box_nms(batch.boxes_incl_N4, ranks_N, threshold, backend=backend)


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


def _autocast(precision: Precision, sam: Sam) -> torch.autocast:
    """Make the context in which "bf16" computes matrix products and convolutions in bfloat16.

    The weights stay as they are, and converted weights are not cached. All threads share torch's cache, so that an
    image on a CUDA stream of its own (`engine.automatic.overlap`) could read weights that another stream has not yet
    written.
    """
    device_type = next(iter(sam.parameters())).device.type
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def _encode(sam: Sam, image_HW3: np.ndarray, frames: Sequence[Frame], config: GenerateConfig) -> Iterator[Tensor]:
    """Yield the embedding [1, C, E, E] of each crop, in order; only one batch of crops is in memory at a time."""
    dtype = next(iter(sam.parameters())).dtype
    for start in range(0, len(frames), config.crops_per_batch):
        crops = [frame.crop(image_HW3) for frame in frames[start : start + config.crops_per_batch]]
        yield from sam.encode(torch.stack([sam.preprocess(crop_HW3) for crop_HW3 in crops]).to(dtype)).split(1)


def _grid_points(frame: Frame, points_per_side: int) -> np.ndarray:
    """Compute the points of the regular grid on a window, in image pixels; float64 [P, 2]."""
    height, width = frame.crop_hw
    return point_grid(points_per_side) * (width, height) + np.array(frame.crop_xyxy[:2])


def _inclusive_box(runs: Rle) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = rle.box_xyxy(runs)
    return (x0, y0, x1 - 1, y1 - 1) if x1 > x0 else (0, 0, 0, 0)
