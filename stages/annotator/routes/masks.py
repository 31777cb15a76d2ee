"""Masks from prompts, and edits of masks. Every mask that a client sends is decoded and checked against its image."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Annotated

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from engine.interactive import edits
from engine.interactive.segment import Click
from stages.annotator.access import Annotator
from stages.annotator.schemas import Body, Coordinate, ImageId, MaskBody, MaskView, ShortText, View
from stages.annotator.server import Clicks, TheClicks
from stages.annotator.sessions import AskedPrompt, Basis, Continued, Prediction, Scribble, merge
from storage.errors import InvalidInput
from storage.rle import Rle

router = APIRouter(prefix="/api/images/{image_id}", tags=["masks"])

MAX_MASKS = 100
"""Largest number of masks in one request."""


class ClickBody(Body):
    """One click, in image pixels; the middle of the pixel in column c is c + 0.5."""

    x: Coordinate
    """Distance from the image's left edge, in pixels."""
    y: Coordinate
    """Distance from the image's upper edge, in pixels."""
    positive: bool = Field(default=True, description="False marks a place that does not belong to the object.")


class ScribbleBody(Body):
    """One stroke of a scribble."""

    points: Annotated[
        list[Annotated[list[Coordinate], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=10_000)
    ] = Field(description="Points [x, y] along the stroke, in image pixels.")
    positive: bool = True
    """False marks a place that does not belong to the object."""


class ContinuedBody(Body):
    """Candidate of an earlier prediction, whose logits the prompt continues."""

    prediction_id: ShortText
    """Id of the prediction."""
    candidate: int = Field(ge=0, le=10)
    """Place of the candidate among those of the prediction, from 0."""


class PromptBody(Body):
    """Prompt for one object."""

    clicks: Annotated[list[ClickBody], Field(max_length=64)] = Field(default=[])
    """Clicks on the object and beside it."""
    box: Annotated[list[Coordinate], Field(min_length=4, max_length=4)] | None = Field(
        default=None, description="x0, y0, x1, y1 in image pixels."
    )
    scribbles: Annotated[list[ScribbleBody], Field(max_length=64)] = Field(default=[])
    """Scribbles on the object and beside it."""
    continued: ContinuedBody | None = None
    """Candidate to continue; null for a first prompt."""
    mask: MaskBody | None = Field(
        default=None, description="Mask to refine; used where `continued` is left out or its logits are gone."
    )
    model: ShortText | None = Field(default=None, description="Model; the server's default if left out.")

    def asked(self, image_hw: tuple[int, int]) -> AskedPrompt:
        """Return the prompt, with a checked mask."""
        return AskedPrompt(
            clicks=tuple(Click(x=each.x, y=each.y, positive=each.positive) for each in self.clicks),
            box_xyxy=(self.box[0], self.box[1], self.box[2], self.box[3]) if self.box is not None else None,
            scribbles=tuple(
                Scribble(points=tuple((x, y) for x, y in each.points), positive=each.positive)
                for each in self.scribbles
            ),
            continued=Continued(**self.continued.model_dump()) if self.continued is not None else None,
            mask=self.mask.checked(image_hw) if self.mask is not None else None,
        )


class RefineBody(PromptBody):
    """Prompt that refines a mask."""

    mask: MaskBody
    """Mask to refine."""


class CandidateView(View):
    """One mask offered for a prompt."""

    rle: MaskView
    """Pixels of the mask."""
    predicted_iou: float
    """The model's own estimate of the mask's IoU, in [0, 1]."""
    stability_score: float
    """Stability of the mask, in [0, 1]."""


class PredictionView(View):
    """Answer to a prompt."""

    prediction_id: str = Field(description="To continue this prediction with the next click.")
    image_sha256: str
    """SHA-256 of the image's stored file."""
    model_id: str
    """Model version that answered."""
    candidates: list[CandidateView] = Field(
        description="Masks, best first: three for a lone click. A refined mask comes first as changed around the "
        "clicks alone, then as the model sees the whole of it."
    )
    basis: Basis = Field(description="What the prediction continued: none, logits of a prediction, or a mask.")
    waited_ms: float
    """Time that the prompt waited for its turn, in milliseconds."""
    decoded_ms: float
    """Time that decoding took, in milliseconds."""
    batch: int = Field(description="Number of prompts that were decoded together.")


class WandBody(Body):
    """A point in a flat region."""

    x: Coordinate
    """Distance from the image's left edge, in pixels."""
    y: Coordinate
    """Distance from the image's upper edge, in pixels."""
    tolerance: int = Field(default=12, ge=0, le=edits.MAX_TOLERANCE, description="Grey levels of each channel.")


class MasksBody(Body):
    """Several masks of the image."""

    masks: Annotated[list[MaskBody], Field(min_length=2, max_length=MAX_MASKS)]
    """The masks."""


class SubtractBody(Body):
    """A mask, and what is taken from it."""

    mask: MaskBody
    """Mask to take from."""
    other: MaskBody
    """Mask to take away."""


class OneMaskBody(Body):
    """A mask of the image."""

    mask: MaskBody
    """The mask."""


class CleanBody(OneMaskBody):
    """A mask, and the size up to which regions are small."""

    max_px: int = Field(default=100, ge=1, le=2**31, description="Largest area of a small region, in pixels.")


class PolygonBody(Body):
    """Rings of a polygon; a pixel is inside where an odd number of rings holds its middle."""

    rings: Annotated[
        list[
            Annotated[
                list[Annotated[list[Coordinate], Field(min_length=2, max_length=2)]],
                Field(min_length=3, max_length=10_000),
            ]
        ],
        Field(min_length=1, max_length=MAX_MASKS),
    ] = Field(description="Corners [x, y] of each ring, in image pixels.")


@router.post("/predict")
async def predict_masks(image_id: ImageId, body: PromptBody, user: Annotator, server: TheClicks) -> PredictionView:
    """Predict masks from clicks, a box, scribbles and an earlier mask."""
    return await _predict(server, image_id, body, user.name)


@router.post("/refine")
async def refine_mask(image_id: ImageId, body: RefineBody, user: Annotator, server: TheClicks) -> PredictionView:
    """Refine any mask by clicks: prefilled, brushed or predicted."""
    return await _predict(server, image_id, body, user.name)


@router.post("/wand")
def select_flat_region(image_id: ImageId, body: WandBody, user: Annotator, server: TheClicks) -> MaskView:
    """Select the connected pixels whose colour is near that of a point."""
    server.predict_limit.take(user.name, "predictions")
    return MaskView.of(server.sessions.wand(int(image_id), body.x, body.y, body.tolerance)[1])


@router.post("/masks/merge")
def merge_masks(image_id: ImageId, body: MasksBody, user: Annotator, server: TheClicks) -> MaskView:
    """Join masks into one."""
    image_hw = _image_hw(server, image_id)
    return MaskView.of(merge([mask.checked(image_hw) for mask in body.masks]))


@router.post("/masks/subtract")
def subtract_mask(image_id: ImageId, body: SubtractBody, user: Annotator, server: TheClicks) -> MaskView:
    """Take the pixels of one mask from another."""
    image_hw = _image_hw(server, image_id)
    return _not_empty(edits.subtract(body.mask.checked(image_hw), body.other.checked(image_hw)))


@router.post("/masks/split")
def split_mask(image_id: ImageId, body: OneMaskBody, user: Annotator, server: TheClicks) -> list[MaskView]:
    """Split a mask into its regions, the largest first."""
    parts = edits.split(body.mask.checked(_image_hw(server, image_id)))
    return [MaskView.of(part) for part in parts]


@router.post("/masks/fill-holes")
def fill_holes(image_id: ImageId, body: CleanBody, user: Annotator, server: TheClicks) -> MaskView:
    """Fill the small holes of a mask."""
    return MaskView.of(edits.fill_holes(body.mask.checked(_image_hw(server, image_id)), body.max_px))


@router.post("/masks/remove-islands")
def remove_islands(image_id: ImageId, body: CleanBody, user: Annotator, server: TheClicks) -> MaskView:
    """Remove the small regions of a mask; its largest region stays."""
    return MaskView.of(edits.remove_islands(body.mask.checked(_image_hw(server, image_id)), body.max_px))


@router.post("/masks/polygon")
def fill_polygon(image_id: ImageId, body: PolygonBody, user: Annotator, server: TheClicks) -> MaskView:
    """Turn the rings of a polygon into a mask."""
    rings = [[(x, y) for x, y in ring] for ring in body.rings]
    return _not_empty(edits.polygon(rings, _image_hw(server, image_id)))


@router.post("/masks/check")
def check_mask(image_id: ImageId, body: OneMaskBody, user: Annotator, server: TheClicks) -> MaskView:
    """Check a mask against the image, and tell its box and area."""
    return MaskView.of(body.mask.checked(_image_hw(server, image_id)))


async def _predict(server: Clicks, image_id: str, body: PromptBody, user: str) -> PredictionView:
    server.predict_limit.take(user, "predictions")

    def submit() -> Future[Prediction]:
        picture = server.sessions.pictures.get(int(image_id))
        return server.sessions.predict(int(image_id), body.asked(picture.image_hw), body.model)

    found = await asyncio.wrap_future(await run_in_threadpool(submit))
    return PredictionView(
        prediction_id=found.prediction_id,
        image_sha256=found.image_sha256,
        model_id=found.model_id,
        candidates=[
            CandidateView(rle=MaskView.of(each.rle), predicted_iou=each.predicted_iou, stability_score=each.stability)
            for each in found.candidates
        ],
        basis=found.basis,
        waited_ms=found.waited_ms,
        decoded_ms=found.decoded_ms,
        batch=found.batch,
    )


def _image_hw(server: Clicks, image_id: str) -> tuple[int, int]:
    return server.sessions.pictures.get(int(image_id)).image_hw


def _not_empty(mask: Rle) -> MaskView:
    view = MaskView.of(mask)
    if not view.area:
        raise InvalidInput("the result has no pixel, expected at least one; remove the mask instead")
    return view
