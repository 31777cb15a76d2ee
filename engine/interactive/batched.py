"""Prompts of several images decoded together, for a server that answers many annotators.

The predictions are those of `engine.interactive.zoom`, but masks stay run lengths with their stability, and the
embeddings come from the caller, which may have them in a cache. Prompts of one kind share one call of the decoder,
whatever image they are of. Shape letters: P prompts, M candidates, L side of the low-resolution logits, C/E width and
side of the embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.images import Frame
from engine.interactive.segment import Click, CropXyxy, ObjectPrompt, check_prompt, to_prompts
from engine.interactive.zoom import (
    LAYERS,
    OVERLAP_RATIO,
    SMALL_FRACTION,
    WINDOW_HANDICAP,
    holds,
    nearest,
    to_whole,
    window_around,
)
from engine.kernels.upsample_runs import upsample_runs
from engine.model.sam import Outputs
from engine.model.weights import Model
from engine.prompts import CropWindow, crop_windows
from storage.errors import InvalidInput
from storage.rle import Rle

STABILITY_OFFSET = 1.0
"""Distance of the two stability thresholds from 0, in logits; the value of "Segment Anything"."""


@dataclass(frozen=True, kw_only=True)
class ImageViews:
    """Windows of one image on which prompts can be decoded, and the function that gives their embeddings."""

    image_hw: tuple[int, int]
    """Height and width of the image, in pixels."""
    windows: tuple[CropWindow, ...]
    """Windows of the image; the first is the whole image."""
    embed: Callable[[CropXyxy], torch.Tensor]
    """Function that returns the float32 embedding [1, C, E, E] of a window."""

    def has(self, crop_xyxy: CropXyxy) -> bool:
        """Tell whether the box is one of the windows."""
        return any(window.xyxy == crop_xyxy for window in self.windows)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One predicted mask of one object."""

    rle: Rle
    """Mask at the image's resolution."""
    box_incl_4: tuple[int, int, int, int]
    """Box of the mask, xyxy with inclusive maxima, in pixels; zeros for an empty mask."""
    predicted_iou: float
    stability: float
    """Stability score in [0, 1]."""
    logits_LL: torch.Tensor
    """Low-resolution logits, float32, for the next prompt of the same object."""
    crop_xyxy: CropXyxy
    """Window of the image that the logits cover."""


def windows_of(model: Model, image_hw: tuple[int, int]) -> tuple[CropWindow, ...]:
    """List the windows on which a model's prompts are decoded: the whole image, and those of a model that zooms in."""
    return tuple(crop_windows(image_hw, LAYERS if model.card.zooms_in else 0, OVERLAP_RATIO))


def predict_many(model: Model, requests: Sequence[tuple[ImageViews, ObjectPrompt]]) -> list[list[Predicted]]:
    """Predict the masks of several objects of any images: three candidates for a lone click, else one; best first.

    Raises:
        ValueError: A prompt cannot be used: it has neither clicks nor a box, lies outside its image, or has logits of
            another size or of a window that the image does not have.
    """
    for views, prompt in requests:
        check_prompt(prompt, views.image_hw)
    lone = [number for number, (_, prompt) in enumerate(requests) if prompt.is_ambiguous]
    other = [number for number, (_, prompt) in enumerate(requests) if not prompt.is_ambiguous]
    decoded = _decode(model, [_in_one_view(model, *requests[number]) for number in other])
    found = {number: each.masks() for number, each in zip(other, decoded, strict=True)}
    found.update(zip(lone, _predict_lone(model, [requests[number] for number in lone]), strict=True))
    return [found[number] for number in range(len(requests))]


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """Prompt with the window on which it is decoded."""

    views: ImageViews
    crop_xyxy: CropXyxy
    prompt: ObjectPrompt

    def frame(self, model: Model) -> Frame:
        return Frame(crop_xyxy=self.crop_xyxy, image_hw=self.views.image_hw, model_side=model.sam.config.input_side)


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """Candidates of one prompt, before their upsampling."""

    logits_MLL: torch.Tensor
    iou_M: np.ndarray
    frame: Frame

    def masks(self, min_iou: float = -math.inf) -> list[Predicted]:
        """Upsample the candidates whose predicted IoU is above `min_iou` to the image; upsampling is costly."""
        is_wanted_M = self.iou_M > min_iou
        return _upsampled(self.logits_MLL[is_wanted_M], self.iou_M[is_wanted_M], self.frame)


def _predict_lone(model: Model, requests: Sequence[tuple[ImageViews, ObjectPrompt]]) -> list[list[Predicted]]:
    """Decode lone clicks on the whole image and on the nearest window of each layer; keep the three best.

    The whole image and the window of the first layer share one call of the decoder. The second layer is decoded where
    the best three so far have a small mask.
    """
    # The whole image and the first layer
    whole = [_Placed(views=views, crop_xyxy=views.windows[0].xyxy, prompt=prompt) for views, prompt in requests]
    asked, placed = _in_layer(1, requests, range(len(requests)))
    decoded = _decode(model, whole + placed)
    best = [sorted(each.masks(), key=lambda mask: -mask.predicted_iou) for each in decoded[: len(whole)]]
    _improve(best, asked, decoded[len(whole) :])

    # Further layers
    for layer in range(2, LAYERS + 1):
        asked, placed = _in_layer(layer, requests, [number for number in asked if _is_small(best[number])])
        _improve(best, asked, _decode(model, placed))
    return best


def _in_layer(
    layer: int, requests: Sequence[tuple[ImageViews, ObjectPrompt]], numbers: Iterable[int]
) -> tuple[list[int], list[_Placed]]:
    """Place those of the numbered requests on a layer whose images have it; return their numbers, too."""
    asked, placed = [], []
    for number in numbers:
        views, prompt = requests[number]
        if windows := [window for window in views.windows if window.layer == layer]:
            asked.append(number)
            placed.append(_Placed(views=views, crop_xyxy=nearest(windows, prompt).xyxy, prompt=prompt))
    return asked, placed


def _improve(best: list[list[Predicted]], numbers: Sequence[int], decoded: Sequence[_Decoded]) -> None:
    """Put candidates of windows among the best three of the numbered requests."""
    for number, each in zip(numbers, decoded, strict=True):
        min_iou = best[number][-1].predicted_iou + WINDOW_HANDICAP
        best[number] = _best_three(best[number], each.masks(min_iou))


def _decode(model: Model, placed: Sequence[_Placed]) -> list[_Decoded]:
    """Decode each prompt on its window, with one call of the decoder for each kind of prompt."""
    answers: dict[int, _Decoded] = {}
    kinds: dict[tuple[int, bool, bool], list[int]] = {}
    for number, each in enumerate(placed):
        prompt = each.prompt
        kind = (len(prompt.clicks), prompt.box_xyxy is None, prompt.previous_logits_LL is None)
        kinds.setdefault(kind, []).append(number)
    for numbers in kinds.values():
        found = _decode_alike(model, [placed[number] for number in numbers])
        answers.update(zip(numbers, found, strict=True))
    return [answers[number] for number in range(len(placed))]


def _decode_alike(model: Model, placed: Sequence[_Placed]) -> list[_Decoded]:
    """Decode prompts of one kind with one call of the decoder."""
    # Each distinct window once, and for every prompt the number of its window
    views = list(dict.fromkeys((id(each.views), each.crop_xyxy) for each in placed))
    first = {view: next(p for p in placed if (id(p.views), p.crop_xyxy) == view) for view in views}
    embeddings_BCEE = torch.cat([each.views.embed(each.crop_xyxy) for each in first.values()])
    index_P = torch.tensor([views.index((id(each.views), each.crop_xyxy)) for each in placed])

    # Decode
    device, side = model.sam.device, model.sam.config.logits_side
    frames = [each.frame(model) for each in placed]
    prompts = to_prompts([each.prompt for each in placed], frames, side=side, device=device)
    outputs: Outputs = "multimask" if placed[0].prompt.is_ambiguous else "single"
    with torch.inference_mode():
        decoded = model.sam.decode(
            embeddings_BCEE.to(device), prompts, outputs=outputs, image_index_P=index_P.to(device)
        )
    logits_PMLL, iou_PM = decoded.logits_PMLL.float(), decoded.iou_PM.float().cpu().numpy()
    return [
        _Decoded(logits_MLL=logits_MLL, iou_M=iou_M, frame=frame)
        for logits_MLL, iou_M, frame in zip(logits_PMLL, iou_PM, frames, strict=True)
    ]


def _upsampled(logits_MLL: torch.Tensor, iou_M: np.ndarray, frame: Frame) -> list[Predicted]:
    masks = upsample_runs(logits_MLL, frame, low_side=logits_MLL.shape[-1], stability_offset=STABILITY_OFFSET)
    return [
        Predicted(
            rle=masks.rles[k],
            box_incl_4=(int(x0), int(y0), int(x1), int(y1)),
            predicted_iou=float(iou_M[k]),
            stability=float(masks.stability_N[k]),
            logits_LL=logits_MLL[k],
            crop_xyxy=frame.crop_xyxy,
        )
        for k, (x0, y0, x1, y1) in enumerate(masks.boxes_incl_N4)
    ]


def _in_one_view(model: Model, views: ImageViews, prompt: ObjectPrompt) -> _Placed:
    """Choose the window of a prompt that is not a lone click, as `engine.interactive.zoom` does."""
    whole = views.windows[0].xyxy
    crop = prompt.previous_crop_xyxy
    if prompt.previous_logits_LL is None and prompt.box_xyxy is not None:
        crop = window_around(views.windows, views.image_hw, prompt.box_xyxy)
    if prompt.previous_logits_LL is not None and crop is not None and not views.has(crop):
        raise ValueError(f"got previous logits of the window {crop}, which is none of this image's windows")
    if crop is None or not all(holds(crop, click.x, click.y) for click in prompt.clicks):
        if prompt.previous_logits_LL is not None and crop is not None and crop != whole:
            prompt = replace(prompt, previous_logits_LL=_laid_into_whole(model, views, prompt))
        crop = whole
    return _Placed(views=views, crop_xyxy=crop, prompt=replace(prompt, previous_crop_xyxy=crop))


def _laid_into_whole(model: Model, views: ImageViews, prompt: ObjectPrompt) -> torch.Tensor:
    assert prompt.previous_logits_LL is not None
    assert prompt.previous_crop_xyxy is not None
    whole = Frame.whole(views.image_hw, model.sam.config.input_side)
    return to_whole(prompt.previous_logits_LL, replace(whole, crop_xyxy=prompt.previous_crop_xyxy), whole)


def _best_three(so_far: Sequence[Predicted], window: Sequence[Predicted]) -> list[Predicted]:
    """Select the three of highest predicted IoU; as `zoom.best_three`, with run lengths in place of pixels."""
    fine = [replace(mask, predicted_iou=mask.predicted_iou - WINDOW_HANDICAP) for mask in window if not _is_cut(mask)]
    return sorted([*so_far, *fine], key=lambda mask: -mask.predicted_iou)[: len(so_far)]


def _is_cut(mask: Predicted) -> bool:
    """Tell whether the mask touches a border of its window that is not a border of the image."""
    if not mask.rle.counts[1::2].any():
        return False
    (x0, y0, x1, y1), (left, top, right, bottom) = mask.box_incl_4, mask.crop_xyxy
    return (
        (left > 0 and x0 == left)
        or (top > 0 and y0 == top)
        or (right < mask.rle.width and x1 == right - 1)
        or (bottom < mask.rle.height and y1 == bottom - 1)
    )


def _is_small(masks: Sequence[Predicted]) -> bool:
    """Tell whether the smallest candidate covers at most `SMALL_FRACTION` of the image."""
    smallest_px = min(int(mask.rle.counts[1::2].sum()) for mask in masks)
    return smallest_px <= SMALL_FRACTION * masks[0].rle.height * masks[0].rle.width


def along_scribble(points: Sequence[tuple[float, float]], *, positive: bool, max_clicks: int = 6) -> tuple[Click, ...]:
    """Place clicks along a scribble, at equal distances from its start to its end.

    A scribble gets one click for each 20 pixels of its length, at least 1 and at most `max_clicks`.

    Raises:
        ValueError: The scribble has no points.
    """
    if not points:
        raise InvalidInput("got a scribble without points, expected at least one point (x, y)")
    path_N2 = np.asarray(points, dtype=np.float64)
    steps_N = np.hypot(*np.diff(path_N2, axis=0).T) if len(path_N2) > 1 else np.zeros(0)
    at_N = np.concatenate([[0.0], np.cumsum(steps_N)])
    count = int(np.clip(at_N[-1] // SCRIBBLE_STEP_PX + 1, 1, max_clicks))
    wanted_K = np.linspace(0, at_N[-1], count) if count > 1 else np.array([at_N[-1] / 2])
    xs_K, ys_K = (np.interp(wanted_K, at_N, path_N2[:, axis]) for axis in (0, 1))
    return tuple(Click(x=float(x), y=float(y), positive=positive) for x, y in zip(xs_K, ys_K, strict=True))


SCRIBBLE_STEP_PX = 20.0
"""Length of scribble for each click, in pixels."""
