"""Masks of the workspace as JSON, and the checks of masks that clients send."""

from collections.abc import Mapping
from typing import Any

from storage import rle
from storage.errors import InvalidInput
from storage.rle import Rle
from storage.workspace.records import GivenMask

MAX_MASK_CHARACTERS = 4_000_000
"""Maximum length of a compressed mask; a 2250 x 1500 image of alternating pixels needs less."""


def mask_to_json(mask: Rle) -> dict[str, Any]:
    """Write a mask as COCO's compressed object: {"size": [height, width], "counts": string}."""
    return {"size": [mask.height, mask.width], "counts": rle.to_coco(mask)}


def mask_from_json(value: Any) -> Rle:
    """Read COCO's compressed object.

    Raises:
        ValueError: The value is no such object, or does not describe a mask.
    """
    if not isinstance(value, Mapping) or set(value) != {"size", "counts"}:
        raise InvalidInput('a mask is {"size": [height, width], "counts": "..."}, COCO\'s compressed form')
    size, counts = value["size"], value["counts"]
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise InvalidInput(f"size {size!r}: expected [height, width]")
    if not isinstance(counts, str):
        raise InvalidInput(f"counts is a {type(counts).__name__}; expected COCO's compressed string")
    if len(counts) > MAX_MASK_CHARACTERS:
        raise InvalidInput(f"counts has {len(counts)} characters; at most {MAX_MASK_CHARACTERS} are taken")
    try:
        return rle.from_coco(counts, height=size[0], width=size[1])
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def check_mask(value: Any, size_hw: tuple[int, int]) -> Rle:
    """Read a mask that a client sent, and check that it belongs to an image of the given size.

    Raises:
        ValueError: The value does not describe a mask of this size with at least one pixel.
    """
    mask = mask_from_json(value)
    if (mask.height, mask.width) != size_hw:
        raise InvalidInput(f"the mask is {mask.height} x {mask.width} pixels, the image {size_hw[0]} x {size_hw[1]}")
    rle.validate(mask)
    if not rle.area(mask):
        raise InvalidInput("the mask has no pixel; send `remove` to take a mask away")
    return mask


def given_to_json(given: GivenMask) -> dict[str, Any]:
    """Write a given mask without its name."""
    return {
        "rle": mask_to_json(given.rle),
        "model_id": given.model_id,
        "predicted_iou": given.predicted_iou,
        "stability_score": given.stability_score,
        "source": given.source,
    }


def given_from_json(mask: str, payload: Mapping[str, Any]) -> GivenMask:
    """Read a given mask."""
    return GivenMask(mask=mask, **{**payload, "rle": mask_from_json(payload["rle"])})
