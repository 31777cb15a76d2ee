"""Interactive segmentation at higher zoom, for networks with a small input: on the whole image and on windows of it.

An object of a dozen model pixels gets poor masks however the network was trained. The same object has twenty model
pixels in a window of the first layer, which has 0.6 of the image's sides. It has more than thirty in a window of the
second layer, which has a third of the image's sides.

A lone click is decoded on the whole image and on the nearest window of the first layer. Where a candidate is small, the
click is also decoded on the nearest window of the second layer. The three candidates of highest predicted IoU are
offered. Further clicks are decoded on the window where the object was found. A box is decoded on the smallest window
that holds it.

The windows are those of the automatic generator's crop layers ("Segment Anything", appendix B). The windows of the
first layer are encoded together with the image. A window of the second layer is encoded when it is first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from engine.images import Frame
from engine.interactive.segment import (
    Candidates,
    CropXyxy,
    NamedByModel,
    ObjectPrompt,
    SamImage,
    SamSegmenter,
    Segmenter,
)
from engine.model.weights import Model
from engine.prompts import CropWindow, crop_windows

LAYERS = 2
"""Number of layers of windows; layer i has 2^i x 2^i overlapping windows of the image."""
OVERLAP_RATIO = 512 / 1500
"""Overlap of neighbouring windows of the first layer, as a fraction of the image's shorter side; the value of "Segment
Anything"."""
WINDOW_HANDICAP = 0.03
"""Penalty on the predicted IoU of a window's candidates, because they miss what lies outside the window. The value was
chosen on images with even image_id: between 0 and 0.1, the IoU of the best of three candidates differs by 0.003."""
SMALL_FRACTION = 0.03
"""Area of a candidate, as a fraction of the image, up to which windows of the second layer are used; it is a quarter of
such a window. The value was chosen on images with even image_id. Compared with no second layer, mean IoU is 0.006
(chosen candidate) and 0.011 (best of three) higher, as high as with a second layer for every click."""
NEVER = -16.0
"""Logit of the cells outside a window when the window's logits are laid into the whole image."""


class ZoomedImage:
    """An image with overlapping windows, ready for any number of prompts; each window is encoded at most once."""

    def __init__(self, model: Model, image_HW3: np.ndarray) -> None:
        """Encode the image (uint8 RGB [H, W, 3]) and the windows of the first layer in one batch."""
        self._model, self._image_HW3 = model, image_HW3
        self.windows = crop_windows((image_HW3.shape[0], image_HW3.shape[1]), LAYERS, OVERLAP_RATIO)
        self._seen: dict[CropXyxy, SamImage] = {}
        self._encode([window.xyxy for window in self.windows if window.layer <= 1])
        self.whole = self.view(self.windows[0].xyxy)

    def segment(self, prompts: Sequence[ObjectPrompt]) -> list[Candidates]:
        """Return candidates for each prompt: three for a lone click, one for any other prompt.

        Raises:
            ValueError: A prompt cannot be used (see `engine.interactive.segment.interact_many`), or the prompt's
                `previous_crop_xyxy` is not a window of this image.
        """
        if not all(prompt.is_ambiguous for prompt in prompts):
            views = [self._view_of(prompt) for prompt in prompts]
            moved = [self._as_seen(view, prompt) for view, prompt in zip(views, prompts, strict=True)]
            return _grouped(views, moved)
        best = self.whole.segment(prompts)
        for layer in range(1, LAYERS + 1):
            windows = [window for window in self.windows if window.layer == layer]
            asked = [number for number, found in enumerate(best) if layer == 1 or _is_small(found)]
            views = [self.view(nearest(windows, prompts[number]).xyxy) for number in asked]
            nearer = _grouped(views, [prompts[number] for number in asked])
            for number, found in zip(asked, nearer, strict=True):
                best[number] = best_three(best[number], found)
        return best

    def view(self, crop_xyxy: CropXyxy) -> SamImage:
        """Return a window of the image, ready for prompts; the window is encoded when it is first used."""
        if crop_xyxy not in self._seen:
            self._encode([crop_xyxy])
        return self._seen[crop_xyxy]

    def _encode(self, crops: Sequence[CropXyxy]) -> None:
        sam, (height, width) = self._model.sam, self._image_HW3.shape[:2]
        frames = [Frame(crop_xyxy=crop, image_hw=(height, width), model_side=sam.config.input_side) for crop in crops]
        pixels = [sam.preprocess(np.ascontiguousarray(frame.crop(self._image_HW3))) for frame in frames]
        with torch.inference_mode():
            embeddings_BCEE = sam.encode(torch.stack(pixels))
        for frame, embeddings_1CEE in zip(frames, embeddings_BCEE.split(1), strict=True):
            self._seen[frame.crop_xyxy] = SamImage(model=self._model, embeddings_1CEE=embeddings_1CEE, frame=frame)

    def _view_of(self, prompt: ObjectPrompt) -> SamImage:
        """Choose the window on which a prompt is decoded.

        A prompt with a previous mask gets the window of that mask. A prompt with a box gets the smallest window that
        holds the box with room around it. The whole image is used for all other prompts, and where a click lies outside
        the window.
        """
        if prompt.previous_logits_LL is not None:
            crop = prompt.previous_crop_xyxy
        else:
            box_xyxy, image_hw = prompt.box_xyxy, self.whole.frame.image_hw
            crop = window_around(self.windows, image_hw, box_xyxy) if box_xyxy is not None else None
        if crop is not None and self._has(crop) and all(holds(crop, click.x, click.y) for click in prompt.clicks):
            return self.view(crop)
        return self.whole

    def _as_seen(self, view: SamImage, prompt: ObjectPrompt) -> ObjectPrompt:
        """Return the prompt with logits that fit the view; those of another window are laid into the whole image.

        Raises:
            ValueError: The previous logits are of a window that this image does not have.
        """
        crop = prompt.previous_crop_xyxy
        if prompt.previous_logits_LL is None or crop is None or crop == view.frame.crop_xyxy:
            return prompt
        if not self._has(crop):
            raise ValueError(f"got previous logits of the window {crop}, which is none of this image's windows")
        logits_LL = to_whole(prompt.previous_logits_LL, replace(self.whole.frame, crop_xyxy=crop), self.whole.frame)
        return replace(prompt, previous_logits_LL=logits_LL, previous_crop_xyxy=None)

    def _has(self, crop_xyxy: CropXyxy) -> bool:
        return any(window.xyxy == crop_xyxy for window in self.windows)


@dataclass(frozen=True, kw_only=True)
class ZoomingSegmenter(NamedByModel):
    """A segmenter that uses a loaded SAM on the whole image and on windows of it."""

    def open(self, image_HW3: np.ndarray) -> ZoomedImage:
        """Encode the image and the windows of the first crop layer."""
        return ZoomedImage(self.model, image_HW3)


SamOpened: TypeAlias = SamImage | ZoomedImage
"""An image that a SAM has opened: the whole image alone, or with windows of it."""


def open_with_sam(model: Model, image_HW3: np.ndarray) -> SamOpened:
    """Encode an image (uint8 RGB [H, W, 3]) as the model's segmenter does, and return it with its embeddings."""
    if model.card.zooms_in:
        return ZoomedImage(model, image_HW3)
    return SamSegmenter(model=model).open(image_HW3)


def make_segmenter(model: Model) -> Segmenter:
    """Make a `ZoomingSegmenter` if `model.card.zooms_in` is True, else a `SamSegmenter`."""
    return ZoomingSegmenter(model=model) if model.card.zooms_in else SamSegmenter(model=model)


def best_three(so_far: Candidates, window: Candidates) -> Candidates:
    """Select the three candidates of highest predicted IoU from `so_far` and `window`, best first.

    The candidates `window` were predicted on one window of the image. The predicted IoU of these candidates is lowered
    by `WINDOW_HANDICAP`. Those that a border of the window inside the image cuts are left out.
    """
    cut_M = is_cut(window.masks_MHW, window.crops_M[0])
    fine_M = np.where(cut_M, -np.inf, window.predicted_iou_M - WINDOW_HANDICAP)
    predicted_M = np.concatenate([so_far.predicted_iou_M, fine_M]).astype(np.float32)
    order = np.argsort(-predicted_M, kind="stable")[: len(so_far.masks_MHW)]
    crops = so_far.crops_M + window.crops_M
    return Candidates(
        masks_MHW=np.concatenate([so_far.masks_MHW, window.masks_MHW])[order],
        predicted_iou_M=predicted_M[order],
        logits_MLL=torch.cat([so_far.logits_MLL, window.logits_MLL])[torch.from_numpy(order)],
        chosen=0,
        crops_M=tuple(crops[k] for k in order),
    )


def is_cut(masks_MHW: np.ndarray, crop_xyxy: CropXyxy) -> np.ndarray:
    """Find the masks that have a pixel at a border of the window inside the image; bool [M].

    Borders of the window that are borders of the image do not count.
    """
    height, width = masks_MHW.shape[1:]
    x0, y0, x1, y1 = crop_xyxy
    cut_M = np.zeros(len(masks_MHW), dtype=bool)
    for is_inner, line_MK in (
        (x0 > 0, masks_MHW[:, y0:y1, x0]),
        (x1 < width, masks_MHW[:, y0:y1, x1 - 1]),
        (y0 > 0, masks_MHW[:, y0, x0:x1]),
        (y1 < height, masks_MHW[:, y1 - 1, x0:x1]),
    ):
        if is_inner:
            cut_M |= line_MK.any(axis=1)
    return cut_M


def to_whole(logits_LL: torch.Tensor, window: Frame, whole: Frame) -> torch.Tensor:
    """Resample the low-resolution logits of a window to the grid of logits of the whole image; the shape stays [L, L].

    Cells outside the window get the logit `NEVER`.
    """
    side = logits_LL.shape[-1]
    cell_px = whole.model_side / side
    corners_4 = whole.boxes_to_model(np.array([window.crop_xyxy]))[0] / cell_px
    x0, y0, x1, y1 = (int(corner + 0.5) for corner in corners_4)
    height, width = (max(1, round(scaled / cell_px)) for scaled in window.scaled_hw)
    content_11hw = logits_LL[None, None, :height, :width].float()
    size = (max(1, y1 - y0), max(1, x1 - x0))
    laid_LL = logits_LL.new_full((side, side), NEVER)
    laid_LL[y0 : y0 + size[0], x0 : x0 + size[1]] = F.interpolate(content_11hw, size, mode="bilinear")[0, 0]
    return laid_LL


def _grouped(views: Sequence[SamImage], prompts: Sequence[ObjectPrompt]) -> list[Candidates]:
    """Segment each prompt on its own view, with one call for each view and kind of prompt."""
    answers: dict[int, Candidates] = {}
    groups: dict[tuple[int, bool], list[int]] = {}
    for number, (view, prompt) in enumerate(zip(views, prompts, strict=True)):
        groups.setdefault((id(view), prompt.previous_logits_LL is None), []).append(number)
    for numbers in groups.values():
        found = views[numbers[0]].segment([prompts[number] for number in numbers])
        answers.update(zip(numbers, found, strict=True))
    return [answers[number] for number in range(len(prompts))]


def _is_small(found: Candidates) -> bool:
    """Tell whether the smallest candidate covers at most `SMALL_FRACTION` of the image."""
    return bool(found.masks_MHW.mean((1, 2)).min() <= SMALL_FRACTION)


def window_around(
    windows: Sequence[CropWindow], image_hw: tuple[int, int], box_xyxy: tuple[float, float, float, float]
) -> CropXyxy:
    """Return the smallest window that holds a box with a quarter of the box's longer side as room around it.

    The whole image is returned for a box outside the image, which will be refused.
    """
    x0, y0, x1, y1 = box_xyxy
    room = 0.25 * max(x1 - x0, y1 - y0)
    height, width = image_hw
    wide = (max(0.0, x0 - room), max(0.0, y0 - room), min(width, x1 + room), min(height, y1 + room))
    smallest_first = [window.xyxy for window in sorted(windows, key=lambda window: -window.layer)]
    holding = (crop for crop in smallest_first if holds(crop, *wide[:2]) and holds(crop, *wide[2:]))
    return next(holding, (0, 0, width, height))


def nearest(windows: Sequence[CropWindow], prompt: ObjectPrompt) -> CropWindow:
    """Return the window whose centre is nearest to the prompt's lone click."""
    (click,) = prompt.clicks

    def distance(window: CropWindow) -> float:
        x0, y0, x1, y1 = window.xyxy
        return (click.x - (x0 + x1) / 2) ** 2 + (click.y - (y0 + y1) / 2) ** 2

    return min(windows, key=distance)


def holds(crop_xyxy: CropXyxy, x: float, y: float) -> bool:
    """Tell whether a point lies in a window; its borders belong to it."""
    x0, y0, x1, y1 = crop_xyxy
    return x0 <= x <= x1 and y0 <= y <= y1
