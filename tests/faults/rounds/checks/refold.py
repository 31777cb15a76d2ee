"""Masks of a line, computed from its operations as the documentation of the workspace describes them.

Shares no code with the product: operations are the rows of the database, masks are pixels by pycocotools.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as coco

PASSIVE = ("activity", "note")
MADE, ACCEPTED, EDITED = "made", "prefill_accepted", "prefill_edited"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One mask of a line."""

    pixels: str
    """Digest of the pixels."""
    origin: str
    model_id: str = ""
    source: str = ""
    """The mask of the dataset that was prefilled."""
    parents: tuple[str, ...] = ()
    """Names of the prefilled masks that it was, or was made of."""
    author: str = ""
    """The annotator whose mask a reviewer found; empty for the line's own annotator."""


@dataclass(frozen=True, kw_only=True)
class Refolded:
    """A line after its operations."""

    masks: Mapping[str, Drawn]
    rejected: Mapping[str, Drawn]
    """Prefilled masks that were rejected or removed."""
    revision: int


def document(value: Any) -> Any:
    """A JSON column: SQLite gives text, PostgreSQL gives the value."""
    return json.loads(value) if isinstance(value, str) else value


def digest_of(rle: Mapping[str, Any]) -> str:
    """Digest of a mask's pixels."""
    return digest(coco.decode({"size": rle["size"], "counts": rle["counts"]}))


def digest(mask_HW: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(mask_HW.astype(bool)).tobytes()).hexdigest()


def prefilled(name: str, payload: Mapping[str, Any]) -> tuple[str, Drawn]:
    """A mask that a task begins with."""
    drawn = Drawn(
        pixels=digest_of(payload["rle"]),
        origin=ACCEPTED,
        model_id=payload.get("model_id", ""),
        source=payload.get("source", ""),
        parents=(name,) if name else tuple(payload.get("parents", ())),
    )
    return name, drawn


def _found(masks: Iterable[Mapping[str, Any]]) -> dict[str, Drawn]:
    """Masks that a reviewer begins with."""
    return {
        each["mask"]: replace(prefilled("", each)[1], origin=each["origin"], author=each["author"]) for each in masks
    }


def refold(given: Mapping[str, Drawn], operations: Iterable[tuple[str, Mapping[str, Any]]]) -> Refolded:
    """The line after operations (kind, payload) in their order; those that do not fit change nothing."""
    history: list[tuple[dict[str, Drawn], dict[str, Drawn]]] = [(dict(given), {})]
    here = revision = 0
    for kind, payload in operations:
        if kind in PASSIVE:
            continue
        revision += 1
        if kind == "fix":
            history, here = [(_found(payload["masks"]), _found(payload["rejected"]))], 0
        elif kind == "undo":
            here = max(0, here - 1)
        elif kind == "redo":
            here = min(len(history) - 1, here + 1)
        else:
            masks, rejected = dict(history[here][0]), dict(history[here][1])
            if _apply(kind, payload, masks, rejected):
                history = [*history[: here + 1], (masks, rejected)]
                here += 1
    return Refolded(masks=history[here][0], rejected=history[here][1], revision=revision)


def _apply(kind: str, payload: Mapping[str, Any], masks: dict[str, Drawn], rejected: dict[str, Drawn]) -> bool:
    """Changes the masks in place; whether the operation fits them."""
    if kind == "merge":
        return _merge(payload, masks, rejected)
    name = payload["mask"]
    if kind == "add":
        if name in masks or name in rejected:
            return False
        masks[name] = _drawn(payload, payload.get("origin", MADE))
        return True
    return name in masks and _EDITS[kind](payload, masks, rejected)


def _change(payload: Mapping[str, Any], masks: dict[str, Drawn], rejected: dict[str, Drawn]) -> bool:
    old = masks[payload["mask"]]
    new = _drawn(payload, _edited(old))
    kept = {"source": old.source, "model_id": new.model_id or old.model_id, "author": old.author}
    masks[payload["mask"]] = replace(new, **kept, parents=old.parents)
    return True


def _accept(payload: Mapping[str, Any], masks: dict[str, Drawn], rejected: dict[str, Drawn]) -> bool:
    return masks[payload["mask"]].origin == ACCEPTED


def _remove(payload: Mapping[str, Any], masks: dict[str, Drawn], rejected: dict[str, Drawn]) -> bool:
    old = masks.pop(payload["mask"])
    if old.origin != MADE:
        rejected[payload["mask"]] = old
    return True


def _reject(payload: Mapping[str, Any], masks: dict[str, Drawn], rejected: dict[str, Drawn]) -> bool:
    return masks[payload["mask"]].origin != MADE and _remove(payload, masks, rejected)


def _split(payload: Mapping[str, Any], masks: dict[str, Drawn], rejected: dict[str, Drawn]) -> bool:
    name, parts = payload["mask"], payload["into"]
    if any(each["mask"] != name and (each["mask"] in masks or each["mask"] in rejected) for each in parts):
        return False
    old = masks.pop(name)
    kept = {"model_id": old.model_id, "author": old.author}
    masks |= {each["mask"]: replace(_drawn(each, _edited(old)), **kept, parents=old.parents) for each in parts}
    return True


_EDITS = {"change": _change, "accept": _accept, "remove": _remove, "reject": _reject, "split": _split}


def _merge(payload: Mapping[str, Any], masks: dict[str, Drawn], rejected: Mapping[str, Drawn]) -> bool:
    names, new = payload["masks"], payload["mask"]
    taken = new not in names and (new in masks or new in rejected)
    if taken or any(name not in masks for name in names):
        return False
    olds = [masks.pop(name) for name in names]
    drawn = _drawn(payload, MADE if all(old.origin == MADE for old in olds) else EDITED)
    parents = tuple(name for old in olds for name in old.parents)
    masks[new] = replace(drawn, author=olds[0].author, parents=parents)
    return True


def _drawn(payload: Mapping[str, Any], origin: str) -> Drawn:
    return Drawn(pixels=digest_of(payload["rle"]), origin=origin, model_id=payload.get("model_id", ""))


def _edited(old: Drawn) -> str:
    return MADE if old.origin == MADE else EDITED
