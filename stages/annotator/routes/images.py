"""Images and their embeddings, by content: a client may keep them for ever."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from stages.annotator.access import Annotator
from stages.annotator.errors import Refusal
from stages.annotator.schemas import Body, ImageId, ShortText, View
from stages.annotator.server import TheClicks

router = APIRouter(prefix="/api/images", tags=["images"])

FOR_EVER = "private, max-age=31536000, immutable"
MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
ModelId = Annotated[ShortText | None, Query(description="Model; the server's default if left out.")]


class ImageView(View):
    """Facts about an image, and the windows on which a model sees it."""

    image_id: str
    """Id of the image."""
    width: int
    """Width of the image, in pixels."""
    height: int
    """Height of the image, in pixels."""
    sha256: str = Field(description="SHA-256 of the stored file, which answers and embeddings carry as well.")
    model_id: str
    """Model version that the windows and the embedding belong to."""
    input_side: int = Field(description="Side of the model's input, in pixels.")
    embedding_shape: list[int] = Field(description="Channels, height and width of an embedding.")
    windows: list[list[int]] = Field(description="Windows x0, y0, x1, y1 in pixels; the first is the whole image.")
    layers: list[int] = Field(description="Crop layer of each window; 0 is the whole image.")
    is_ready: bool = Field(description="Whether the whole image and the first windows are encoded.")


class PrepareBody(Body):
    """Model to encode an image for."""

    model: ShortText | None = Field(default=None, description="Model; the server's default if left out.")


class PrepareView(View):
    """Whether an image is encoded already."""

    is_ready: bool
    """Whether a first click is answered at once."""


@router.get("/{image_id}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
def read_image(image_id: ImageId, user: Annotator, request: Request, server: TheClicks) -> Response:
    """Read the stored file of an image."""
    picture = server.sessions.pictures.get(int(image_id))
    media_type = MEDIA_TYPES.get(picture.record.format, "application/octet-stream")
    return keep_for_ever(request, picture.record.stored_sha256, picture.data, media_type, {})


@router.get("/{image_id}/facts")
def read_image_facts(image_id: ImageId, user: Annotator, server: TheClicks, model: ModelId = None) -> ImageView:
    """Read the size and hash of an image, and the windows whose embeddings can be read."""
    encoded = server.sessions.open(int(image_id), model)
    config = encoded.model.sam.config
    return ImageView(
        image_id=image_id,
        width=encoded.picture.record.width,
        height=encoded.picture.record.height,
        sha256=encoded.picture.record.stored_sha256,
        model_id=encoded.model.model_id,
        input_side=config.input_side,
        embedding_shape=[config.width, config.embedding_side, config.embedding_side],
        windows=[list(window.xyxy) for window in encoded.views.windows],
        layers=[window.layer for window in encoded.views.windows],
        is_ready=server.sessions.encoder.is_ready(encoded.picture, encoded.model),
    )


@router.post("/{image_id}/prepare")
def prepare_image(image_id: ImageId, body: PrepareBody, user: Annotator, server: TheClicks) -> PrepareView:
    """Have an image encoded ahead of its first click."""
    return PrepareView(is_ready=server.sessions.prepare(int(image_id), body.model))


@router.get(
    "/{image_id}/embedding",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def read_embedding(
    image_id: ImageId,
    user: Annotator,
    request: Request,
    server: TheClicks,
    window: Annotated[int, Query(ge=0, le=1000, description="Index into `windows` of the image's facts.")] = 0,
    model: ModelId = None,
) -> Response:
    """Read an embedding as little-endian fp16, channel by channel; headers name model, image, shape and SHA-256."""
    encoded = server.sessions.open(int(image_id), model)
    windows = encoded.views.windows
    if window >= len(windows):
        raise Refusal(404, "not_found", f"got window {window}, expected 0 to {len(windows) - 1}")
    crop = windows[window].xyxy
    embedding_CEE = server.sessions.encoder.embedding(encoded.picture, encoded.model, crop)
    data = embedding_CEE.astype("<f2").tobytes()
    sha256 = encoded.picture.record.stored_sha256
    headers = {
        "X-Model-Id": encoded.model.model_id,
        "X-Image-Sha256": sha256,
        "X-Shape": ",".join(map(str, embedding_CEE.shape)),
        "X-Window": ",".join(map(str, crop)),
        "X-Sha256": hashlib.sha256(data).hexdigest(),
    }
    tag = f"{sha256}-{encoded.model.model_id}-{window}"
    return keep_for_ever(request, tag, data, "application/octet-stream", headers)


def keep_for_ever(request: Request, tag: str, data: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Answer with content that never changes, or with 304 where the client has it."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": FOR_EVER, **headers}
    if f'"{tag}"' in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)
