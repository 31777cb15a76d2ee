"""Interactive segmentation: clicks, a box, a previous mask in; candidate masks out.

Everything is stateless: the caller keeps the embedding, the clicks so far and the logits of the mask it chose, and
hands them in again. Points and boxes are in image pixels. Shape letters: P prompts (one an object), K clicks, M
candidates, H/W the image, L side of the low-resolution logits (4 E), C/E width and side of the embedding.
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

CropXyxy = tuple[int, int, int, int]

FLOATS_AT_ONCE = 16_000_000
"""Upsampled logits held at a time (64 MB): a batch of candidates of a 12-megapixel image would take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Click:
    """One click of an annotator, or of a simulated one."""

    x: float
    y: float
    positive: bool = True
    """True: this belongs to the object; False: this does not."""


@dataclass(frozen=True, kw_only=True)
class ObjectPrompt:
    """What an annotator has said so far about one object."""

    clicks: tuple[Click, ...] = ()
    box_xyxy: tuple[float, float, float, float] | None = None
    previous_logits_LL: torch.Tensor | None = None
    """Unthresholded logits of the mask chosen last, from `Candidates.logits_MLL`; None: no mask yet."""
    previous_crop_xyxy: CropXyxy | None = None
    """The window those logits cover, from `Candidates.crop_of`; None: the whole image."""

    @property
    def is_ambiguous(self) -> bool:
        """A lone first click may mean the whole, a part or a sub-part: it gets three candidates, anything else one."""
        return len(self.clicks) == 1 and self.box_xyxy is None and self.previous_logits_LL is None


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The masks a segmenter offers for one object."""

    masks_MHW: np.ndarray
    """bool, at the image's resolution."""
    predicted_iou_M: np.ndarray
    """float32; NaN from a segmenter that predicts none."""
    logits_MLL: torch.Tensor
    """float32, the chosen one goes into the next `ObjectPrompt`; [M, 0, 0] from a segmenter that needs none back."""
    chosen: int
    """Index of the candidate an annotator is shown first: the one of highest predicted IoU."""
    crops_M: tuple[CropXyxy, ...] = ()
    """The window of the image that each candidate's logits cover; empty: all cover the whole image."""

    def crop_of(self, candidate: int) -> CropXyxy | None:
        """Look up the window that goes with a candidate's logits into the next `ObjectPrompt`."""
        return self.crops_M[candidate] if self.crops_M else None


class OpenedImage(Protocol):
    """An image a segmenter has looked at once, ready for any number of prompts."""

    def segment(self, prompts: Sequence[ObjectPrompt]) -> list[Candidates]:
        """Offer candidates for each prompt; all prompts of a call have the same parts and number of clicks."""


class Segmenter(Protocol):
    """Anything that turns prompts into masks: a SAM, a classical method, stored ground truth."""

    @property
    def name(self) -> str:
        """Name of the segmenter in reports."""

    @property
    def model_id(self) -> str:
        """Exact name: a segmenter of another id may offer other masks."""

    def open(self, image_HW3: np.ndarray) -> OpenedImage:
        """Do the work that is done once per image, uint8 RGB [H, W, 3]."""


@dataclass(frozen=True, kw_only=True)
class SamImage:
    """An image's embedding and the frame it was made in."""

    model: Model
    embeddings_1CEE: torch.Tensor
    frame: Frame

    def segment(self, prompts: Sequence[ObjectPrompt]) -> list[Candidates]:
        """Call `interact_many`."""
        return interact_many(self.model, self.embeddings_1CEE, self.frame, prompts)


@dataclass(frozen=True, kw_only=True)
class NamedByModel:
    """What carries the names of its model: the base of segmenters and proposers that wrap one."""

    model: Model

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def model_id(self) -> str:
        """The name and the weights' hash."""
        return self.model.model_id


@dataclass(frozen=True, kw_only=True)
class SamSegmenter(NamedByModel):
    """A loaded SAM as a segmenter."""

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
    """Decode the masks for one object's clicks, box and previous mask: three for a lone click, else one.

    Raises:
        ValueError: neither clicks nor a box, a point outside the image, an empty box, or logits of another size.
    """
    prompt = ObjectPrompt(clicks=tuple(clicks), box_xyxy=box_xyxy, previous_logits_LL=previous_logits_LL)
    return interact_many(model, embeddings_1CEE, frame, [prompt])[0]


def interact_many(
    model: Model, embeddings_1CEE: torch.Tensor, frame: Frame, prompts: Sequence[ObjectPrompt]
) -> list[Candidates]:
    """Decode the masks for several objects of one image together.

    Raises:
        ValueError: as `interact`, or prompts that differ in their parts or in their number of clicks.
    """
    if not prompts:
        return []
    for prompt in prompts:
        check_prompt(prompt, frame.image_hw)
    _check_alike(prompts)
    sam_prompts = _to_model(prompts, frame, side=4 * model.sam.config.embedding_side, device=embeddings_1CEE.device)
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

    Bilinear to the model's input, cut to the part that is not padding, bilinear to the window, then cut at 0, as SAM
    does it.
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
    """Raise ValueError unless the prompt says something about a place inside the image."""
    height, width = image_hw
    if not prompt.clicks and prompt.box_xyxy is None:
        raise ValueError("got a prompt without clicks and without a box, expected at least one of them")
    for click in prompt.clicks:
        if not (0 <= click.x <= width and 0 <= click.y <= height):
            raise ValueError(f"got a click at x {click.x}, y {click.y}, expected it inside the {width}x{height} image")
    if prompt.box_xyxy is not None:
        x0, y0, x1, y1 = prompt.box_xyxy
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(f"got box {prompt.box_xyxy}, expected x0 < x1, y0 < y1 inside the {width}x{height} image")


def _check_alike(prompts: Sequence[ObjectPrompt]) -> None:
    kinds = {(len(p.clicks), p.box_xyxy is None, p.previous_logits_LL is None) for p in prompts}
    if len(kinds) > 1:
        raise ValueError(
            f"got prompts of {len(kinds)} kinds in one call, expected the same number of clicks in each, and a box and "
            "previous logits in all or in none; call once for each kind"
        )


def _to_model(prompts: Sequence[ObjectPrompt], frame: Frame, *, side: int, device: torch.device) -> Prompts:
    points_PK2 = np.array([[(click.x, click.y) for click in p.clicks] for p in prompts], dtype=np.float64)
    points_PK2 = points_PK2.reshape(len(prompts), -1, 2)
    labels_PK = np.array([[click.positive for click in p.clicks] for p in prompts], dtype=np.int64).reshape(
        len(prompts), -1
    )
    boxes = [p.box_xyxy for p in prompts if p.box_xyxy is not None]
    logits = [p.previous_logits_LL for p in prompts if p.previous_logits_LL is not None]
    for logits_LL in logits:
        if logits_LL.shape != (side, side):
            raise ValueError(f"got previous logits of shape {list(logits_LL.shape)}, expected [{side}, {side}]")
    boxes_P4 = torch.from_numpy(frame.boxes_to_model(np.array(boxes))).float() if boxes else None
    return Prompts(
        points_PK2=torch.from_numpy(frame.points_to_model(points_PK2)).float(),
        labels_PK=torch.from_numpy(labels_PK),
        boxes_P4=boxes_P4,
        mask_logits_P1LL=torch.stack(logits)[:, None].float() if logits else None,
    ).to(device)
