"""Interactive segmentation: clicks, a box and a previous mask in; candidate masks out.

The functions keep no state. The caller keeps the embedding, all clicks and the logits of the chosen mask, and passes
them again with the next prompt. Points and boxes are in image pixels. Shape letters: P prompts (one for each object), K
clicks, M candidates, H/W the image, L side of the low-resolution logits (4 E), C/E width and side of the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from engine.images import Frame
from engine.model.sam import Outputs
from engine.model.weights import Model
from engine.prompts import Prompts
from storage.errors import InvalidInput

CropXyxy = tuple[int, int, int, int]
"""Window of an image, half-open xyxy, in pixels."""

FLOATS_AT_ONCE = 16_000_000
"""Largest number of upsampled logits held at a time (64 MB); all candidates of a 12-megapixel image take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Click:
    """One click of an annotator, in image pixels."""

    x: float
    y: float
    positive: bool = True
    """Whether the click lies on the object; False marks a place that does not belong to the object."""


@dataclass(frozen=True, kw_only=True)
class ObjectPrompt:
    """Prompt for one object: its clicks, its box and its previous mask."""

    clicks: tuple[Click, ...] = ()
    box_xyxy: tuple[float, float, float, float] | None = None
    """Box around the object, in image pixels; None means no box."""
    previous_logits_LL: torch.Tensor | None = None
    """Unthresholded logits of the mask that was chosen last, from `Candidates.logits_MLL`; None means no mask yet."""
    previous_crop_xyxy: CropXyxy | None = None
    """Window of the image that `previous_logits_LL` covers, from `Candidates.crop_of`; None means the whole image."""

    @property
    def is_ambiguous(self) -> bool:
        """Whether the prompt is a lone first click, which may mean the whole object, a part or a sub-part.

        An ambiguous prompt gets three candidates, any other prompt gets one.
        """
        return len(self.clicks) == 1 and self.box_xyxy is None and self.previous_logits_LL is None


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Masks that a segmenter offers for one object."""

    masks_MHW: np.ndarray
    """Masks at the image's resolution, bool."""
    predicted_iou_M: np.ndarray
    """Predicted IoU of each mask, float32; NaN from a segmenter that predicts none."""
    logits_MLL: torch.Tensor
    """Low-resolution logits of each mask, float32. Those of the chosen mask go into the next `ObjectPrompt`. The shape
    is [M, 0, 0] from a segmenter that does not need them."""
    chosen: int
    """Index of the candidate that an annotator is shown first; from a SAM, the one of highest predicted IoU."""
    crops_M: tuple[CropXyxy, ...] = ()
    """Windows of the image that the logits of the candidates cover; empty when all logits cover the whole image."""

    def crop_of(self, candidate: int) -> CropXyxy | None:
        """Return the window that the logits of candidate number `candidate` cover; None means the whole image."""
        return self.crops_M[candidate] if self.crops_M else None


class OpenedImage(Protocol):
    """An image that a segmenter has prepared once, ready for any number of prompts."""

    def segment(self, prompts: Sequence[ObjectPrompt]) -> list[Candidates]:
        """Return candidates for each prompt.

        All prompts of a call must have the same number of clicks, and must agree in whether they have a box and in
        whether they have previous logits.
        """


class Segmenter(Protocol):
    """Anything that turns prompts into masks: for example a SAM, a classical method or stored ground truth."""

    @property
    def name(self) -> str:
        """Name of the segmenter in reports."""

    @property
    def model_id(self) -> str:
        """Id of the exact model; a segmenter with another id may offer other masks."""

    def open(self, image_HW3: np.ndarray) -> OpenedImage:
        """Prepare an image (uint8 RGB [H, W, 3]) once, for any number of prompts."""


@dataclass(frozen=True, kw_only=True)
class SamImage:
    """Embedding of an image, and the frame of the window that was encoded."""

    model: Model
    embeddings_1CEE: torch.Tensor
    frame: Frame

    def segment(self, prompts: Sequence[ObjectPrompt]) -> list[Candidates]:
        """Return candidates for each prompt; `interact_many` says which prompts can share a call."""
        return interact_many(self.model, self.embeddings_1CEE, self.frame, prompts)


@dataclass(frozen=True, kw_only=True)
class NamedByModel:
    """Base class of classes that wrap a model and have the same name and id as the model."""

    model: Model

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name

    @property
    def model_id(self) -> str:
        """Id of the exact model: the model's name and the hash of the model's weights."""
        return self.model.model_id


@dataclass(frozen=True, kw_only=True)
class SamSegmenter(NamedByModel):
    """A segmenter that uses a loaded SAM on the whole image."""

    def open(self, image_HW3: np.ndarray) -> SamImage:
        """Encode the image."""
        sam = self.model.sam
        height, width = image_HW3.shape[:2]
        with torch.inference_mode():
            embeddings_1CEE = sam.encode(sam.preprocess(image_HW3)[None])
        frame = Frame.whole((height, width), sam.config.input_side)
        return SamImage(model=self.model, embeddings_1CEE=embeddings_1CEE, frame=frame)


def interact(
    model: Model,
    embeddings_1CEE: torch.Tensor,
    frame: Frame,
    *,
    clicks: Sequence[Click] = (),
    box_xyxy: tuple[float, float, float, float] | None = None,
    previous_logits_LL: torch.Tensor | None = None,
) -> Candidates:
    """Predict masks of one object from clicks, a box and a previous mask: three for a lone click, else one.

    A lone click is a single click without a box and without a previous mask.

    Raises:
        ValueError: The prompt has neither clicks nor a box, a point lies outside the image, the box is empty, or the
            logits have another size.
    """
    prompt = ObjectPrompt(clicks=tuple(clicks), box_xyxy=box_xyxy, previous_logits_LL=previous_logits_LL)
    return interact_many(model, embeddings_1CEE, frame, [prompt])[0]


def interact_many(
    model: Model, embeddings_1CEE: torch.Tensor, frame: Frame, prompts: Sequence[ObjectPrompt]
) -> list[Candidates]:
    """Predict the masks of several objects of one image together, from one prompt for each object.

    Raises:
        ValueError: A prompt cannot be used (see `interact`), or the prompts differ in their number of clicks, in
            whether they have a box or in whether they have previous logits.
    """
    if not prompts:
        return []
    for prompt in prompts:
        check_prompt(prompt, frame.image_hw)
    _check_alike(prompts)
    sam_prompts = to_prompts(
        prompts, [frame] * len(prompts), side=model.sam.config.logits_side, device=embeddings_1CEE.device
    )
    outputs: Outputs = "multimask" if prompts[0].is_ambiguous else "single"
    with torch.inference_mode():
        decoded = model.sam.decode(embeddings_1CEE, sam_prompts, outputs=outputs)
    logits_PMLL, iou_PM = decoded.logits_PMLL.float(), decoded.iou_PM.float().cpu().numpy()
    masks_NHW = masks_at_image_size(logits_PMLL.flatten(0, 1), frame)
    masks_PMHW = masks_NHW.reshape(*iou_PM.shape, *frame.image_hw)
    return [
        Candidates(
            masks_MHW=masks_MHW,
            predicted_iou_M=iou_M,
            logits_MLL=logits_MLL,
            chosen=int(iou_M.argmax()),
            crops_M=(frame.crop_xyxy,) * len(iou_M),
        )
        for masks_MHW, iou_M, logits_MLL in zip(masks_PMHW, iou_PM, logits_PMLL, strict=True)
    ]


def masks_at_image_size(logits_NLL: torch.Tensor, frame: Frame) -> np.ndarray:
    """Turn low-resolution logits into masks of the whole image, bool [N, H, W]; False outside the frame's window.

    As in SAM, the logits are resized to the model's input, cropped to the part that is not padding, resized to the
    window and cut at 0. Both resizes are bilinear.
    """
    x0, y0, x1, y1 = frame.crop_xyxy
    scaled_height, scaled_width = frame.scaled_hw
    masks_NHW = np.zeros((len(logits_NLL), *frame.image_hw), dtype=bool)
    at_once = max(1, FLOATS_AT_ONCE // (frame.model_side**2 + (x1 - x0) * (y1 - y0)))
    with torch.inference_mode():
        for start in range(0, len(logits_NLL), at_once):
            part_1NLL = logits_NLL[start : start + at_once].float()[None]
            side = (frame.model_side, frame.model_side)
            padded = F.interpolate(part_1NLL, side, mode="bilinear", align_corners=False)
            window = padded[..., :scaled_height, :scaled_width]
            full = F.interpolate(window, frame.crop_hw, mode="bilinear", align_corners=False)[0]
            masks_NHW[start : start + at_once, y0:y1, x0:x1] = (full > 0).cpu().numpy()
    return masks_NHW


def check_prompt(prompt: ObjectPrompt, image_hw: tuple[int, int]) -> None:
    """Check that a prompt has a click or a box, and that its clicks and its box lie inside the image.

    Raises:
        ValueError: The prompt has neither clicks nor a box, a click lies outside the image, or the box is empty or not
            inside the image.
    """
    height, width = image_hw
    if not prompt.clicks and prompt.box_xyxy is None:
        raise InvalidInput("got a prompt without clicks and without a box, expected at least one of them")
    for click in prompt.clicks:
        if not (0 <= click.x <= width and 0 <= click.y <= height):
            raise InvalidInput(
                f"got a click at x {click.x}, y {click.y}, expected it inside the {width}x{height} image"
            )
    if prompt.box_xyxy is not None:
        x0, y0, x1, y1 = prompt.box_xyxy
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise InvalidInput(
                f"got box {prompt.box_xyxy}, expected x0 < x1, y0 < y1 inside the {width}x{height} image"
            )


def _check_alike(prompts: Sequence[ObjectPrompt]) -> None:
    kinds = {(len(p.clicks), p.box_xyxy is None, p.previous_logits_LL is None) for p in prompts}
    if len(kinds) > 1:
        raise ValueError(
            f"got prompts of {len(kinds)} kinds in one call, expected the same number of clicks in each, and a box and "
            "previous logits in all or in none; call once for each kind"
        )


def to_prompts(prompts: Sequence[ObjectPrompt], frames: Sequence[Frame], *, side: int, device: torch.device) -> Prompts:
    """Convert prompts of one kind to the network's, each from the pixels of its own frame.

    Args:
        prompts: Prompts with the same number of clicks, and with a box and previous logits in all or in none.
        frames: Frame of each prompt.
        side: Side of the low-resolution logits.
        device: Device of the result.

    Raises:
        ValueError: Previous logits have another size.
    """
    points_PK2 = torch.zeros(len(prompts), len(prompts[0].clicks), 2)
    for number, (prompt, frame) in enumerate(zip(prompts, frames, strict=True)):
        points_K2 = np.array([(click.x, click.y) for click in prompt.clicks], dtype=np.float64).reshape(-1, 2)
        points_PK2[number] = torch.from_numpy(frame.points_to_model(points_K2))
    labels_PK = np.array([[click.positive for click in p.clicks] for p in prompts], dtype=np.int64)
    boxes = [
        frame.boxes_to_model(np.array([p.box_xyxy])) for p, frame in zip(prompts, frames, strict=True) if p.box_xyxy
    ]
    logits = [p.previous_logits_LL for p in prompts if p.previous_logits_LL is not None]
    for logits_LL in logits:
        if logits_LL.shape != (side, side):
            raise ValueError(f"got previous logits of shape {list(logits_LL.shape)}, expected [{side}, {side}]")
    return Prompts(
        points_PK2=points_PK2,
        labels_PK=torch.from_numpy(labels_PK.reshape(len(prompts), -1)),
        boxes_P4=torch.from_numpy(np.concatenate(boxes)).float() if boxes else None,
        mask_logits_P1LL=torch.stack(logits)[:, None].float() if logits else None,
    ).to(device)
