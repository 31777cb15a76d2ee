"""Decoders of models for clients that decode prompts by themselves, with all that this takes besides an embedding."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from engine.interactive import batched, refine, zoom
from stages.annotator.access import Annotator
from stages.annotator.decoders import find_runtime
from stages.annotator.routes.images import keep_for_ever
from stages.annotator.schemas import ShortText, View
from stages.annotator.server import TheClicks
from storage.errors import NotFound

router = APIRouter(prefix="/api/decoder", tags=["decoders"])

ModelId = Annotated[ShortText | None, Query(description="Model; the server's default if left out.")]


class DecoderView(View):
    """A model's decoder, and the constants of the prediction around it."""

    model_id: str
    """Model version that the decoder belongs to."""
    sha256: str = Field(description="SHA-256 of the ONNX model; empty where prompts are decoded on the server alone.")
    runtime: str = Field(description="Path of onnxruntime-web; empty where the server was built without it.")
    reason: str = Field(description="Why prompts are decoded on the server alone; empty where they need not be.")
    input_side: int = Field(description="Side of the model's input, in pixels.")
    logits_side: int = Field(description="Side of the decoder's logits.")
    zooms_in: bool = Field(description="Whether prompts are decoded on windows of the image as well.")
    window_handicap: float = Field(description="Penalty on the predicted IoU of a window's candidates.")
    small_fraction: float = Field(description="Area, as a fraction of the image, up to which a candidate is small.")
    outside_logit: float = Field(description="Logit of cells outside a window.")
    mask_logit: float = Field(description="Logit of a cell that a mask to refine covers in full.")
    stability_offset: float = Field(description="Distance of the two stability thresholds from 0, in logits.")


@router.get("")
def read_decoder(user: Annotator, server: TheClicks, model: ModelId = None) -> DecoderView:
    """Tell how a client can decode the prompts of a model, or why it cannot."""
    found, runtime = server.sessions.models.get(model), find_runtime()
    sha256 = reason = ""
    try:
        sha256 = server.sessions.decoders.get(found).sha256
    except NotFound as error:
        reason = str(error)
    if not runtime:
        reason = reason or "this server was built without onnxruntime-web; run `make page` where Node is installed"
    return DecoderView(
        model_id=found.model_id,
        sha256=sha256,
        runtime=f"/{runtime}" if runtime else "",
        reason=reason,
        input_side=found.sam.config.input_side,
        logits_side=found.sam.config.logits_side,
        zooms_in=found.card.zooms_in,
        window_handicap=zoom.WINDOW_HANDICAP,
        small_fraction=zoom.SMALL_FRACTION,
        outside_logit=zoom.NEVER,
        mask_logit=refine.MASK_LOGIT,
        stability_offset=batched.STABILITY_OFFSET,
    )


@router.get("/onnx", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}})
def read_onnx(user: Annotator, request: Request, server: TheClicks, model: ModelId = None) -> Response:
    """Read a model's decoder as an ONNX model, whose graph `engine/model/onnx_decoder.py` describes."""
    found = server.sessions.models.get(model)
    file = server.sessions.decoders.get(found)
    headers = {"X-Model-Id": found.model_id}
    return keep_for_ever(request, file.sha256, file.data, "application/octet-stream", headers)
