"""Requests to open or extend a round under an id: the same whether a command, HTTP or a schedule sends them."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from stages.rounds.open import RoundRequest
from storage.workspace.records import ClientRequest

DEFAULT_IMAGES = 100
"""Number of images of a round that is opened over HTTP without a number."""


def request_to_open(request: RoundRequest, request_id: str | None) -> ClientRequest | None:
    """Give a request to open a round its id, so that it is answered once; None without an id."""
    defaults = RoundRequest(stage="assisted_manual", images=DEFAULT_IMAGES)
    if request.stage == "assisted_manual":  # which begins empty, whatever the request says
        request, defaults = replace(request, prefill=""), replace(defaults, prefill="")
    return _with_id(request_id, asdict(request), asdict(defaults))


def request_to_extend(request_id: str | None, *, images: int | None, query: str = "") -> ClientRequest | None:
    """Give a request to add images to a round its id, so that it is answered once; None without an id."""
    return _with_id(request_id, {"images": images, "query": query}, {"images": None, "query": ""})


def _with_id(request_id: str | None, wanted: Mapping[str, Any], defaults: Mapping[str, Any]) -> ClientRequest | None:
    """Leave out what has its default: a field that a later version adds does not make this another request."""
    if request_id is None:
        return None
    content = {name: value for name, value in wanted.items() if value != defaults[name]}
    return ClientRequest(request_id=request_id, content=content, defaults=defaults)
