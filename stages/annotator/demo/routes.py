"""What only the demo has: photos in, and all masks of one."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from stages.annotator.access import Annotator
from stages.annotator.decoding import Busy
from stages.annotator.demo.visitors import PHOTOS_PATH, Demo, find_demo
from stages.annotator.errors import Refusal
from stages.annotator.pictures import Picture
from stages.annotator.routes.masks import CandidateView
from stages.annotator.schemas import ImageId, MaskView
from stages.ingest.normalise import Unusable

router = APIRouter(tags=["demo"])
TheDemo = Annotated[Demo, Depends(find_demo)]


class PhotoView(BaseModel):
    """A photo that the demo has in memory."""

    image_id: str = Field(description="Random number that only who sent the photo knows.")
    width: int
    height: int
    model_id: str

    @classmethod
    def of(cls, picture: Picture, demo: Demo) -> PhotoView:
        """Describe a photo."""
        record = picture.record
        model_id = demo.sessions.models.get(None).model_id
        return cls(image_id=str(record.image_id), width=record.width, height=record.height, model_id=model_id)


class DemoView(BaseModel):
    """What the demo shows first, and what it takes."""

    photo: PhotoView | None = Field(description="Photo that is shown first; none if visitors bring their own.")
    max_file_bytes: int
    max_pixels: int


@router.get("/api/demo")
def read_demo(user: Annotator, demo: TheDemo) -> DemoView:
    """Tell what is shown first, and how large a photo may be."""
    config = demo.config
    first = PhotoView.of(demo.photos.first, demo) if demo.photos.first is not None else None
    return DemoView(photo=first, max_file_bytes=config.max_file_bytes, max_pixels=config.max_pixels)


@router.post(PHOTOS_PATH)
async def send_photo(user: Annotator, request: Request, demo: TheDemo) -> PhotoView:
    """Take a photo: the body is the file. It stays in memory until others push it out, and is written nowhere."""
    demo.photo_limit.take(user.name, "photos")
    demo.all_photos_limit.take("", "photos from all visitors")
    data = await request.body()
    try:
        picture = await run_in_threadpool(demo.photos.add, data)
    except Unusable as error:
        status = 413 if error.reason == "too_large" else 422
        raise Refusal(status, error.reason, f"this photo cannot be used: {error.detail}") from error
    with suppress(Busy):  # the first click encodes it
        await run_in_threadpool(demo.sessions.prepare, picture.record.image_id)
    return PhotoView.of(picture, demo)


@router.post("/api/images/{image_id}/everything")
def find_everything(image_id: ImageId, user: Annotator, demo: TheDemo) -> list[CandidateView]:
    """Find all masks of a photo, as the fully automatic stage does."""
    encoded = demo.sessions.open(int(image_id))
    demo.everything_limit.take(user.name, "requests for all masks")
    return [
        CandidateView(rle=MaskView.of(mask.rle), predicted_iou=mask.predicted_iou, stability_score=mask.stability_score)
        for mask in demo.everything.find(encoded)
    ]
