"""Checks of operations that a client sends, before anything is stored."""

import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from storage.errors import InvalidInput
from storage.workspace.masks import check_mask
from storage.workspace.records import Kind, Operation, Origin

MAX_OPERATIONS = 1000
"""Most operations in one call."""
MAX_PAYLOAD_BYTES = 8_000_000
"""Maximum size of an operation's payload as JSON, in bytes."""
MAX_NAME = 64
"""Maximum number of characters of the name of a mask or a session."""
_MAX_COUNT = 2**31 - 1


class InvalidOperation(InvalidInput):
    """Error of one operation; nothing of its call was stored.

    Attributes:
        op_id: Id of the operation, as it was sent.
    """

    def __init__(self, op_id: str, problem: str) -> None:
        super().__init__(f"operation {op_id}: {problem}")
        self.op_id = op_id


def check_operations(operations: Sequence[Operation], size_hw: tuple[int, int]) -> list[Operation]:
    """Check operations of a task whose image has the given size, and return them with payloads as plain JSON values.

    Raises:
        InvalidOperation: An operation is malformed, or holds a mask that is not of this image.
        ValueError: There are too many operations, or two of them have the same id.
    """
    if len(operations) > MAX_OPERATIONS:
        raise InvalidInput(f"{len(operations)} operations in one call; send at most {MAX_OPERATIONS}")
    if len({operation.op_id for operation in operations}) != len(operations):
        raise InvalidInput("two operations of the call have the same op_id; each needs its own UUID")
    checked = []
    for operation in operations:
        try:
            checked.append(_check(operation, size_hw))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise InvalidOperation(str(operation.op_id)[:MAX_NAME], problem) from error
    return checked


def _check(operation: Operation, size_hw: tuple[int, int]) -> Operation:
    parsed = uuid.UUID(operation.op_id)
    if parsed.version != 7 or str(parsed) != operation.op_id:
        raise ValueError("op_id is not a UUID of version 7 in lower case")
    _check_name("session", operation.session)
    _check_count("sequence", operation.sequence)
    _check_count("base_revision", operation.base_revision)
    if operation.kind not in [*Kind]:
        raise ValueError(f"kind {operation.kind!r}: expected one of {', '.join(Kind)}")
    if not isinstance(operation.client_time, datetime) or operation.client_time.tzinfo is None:
        raise ValueError(f"client_time {operation.client_time!r}: expected a time with its time zone")
    if not isinstance(operation.payload, Mapping):
        raise ValueError(f"payload is a {type(operation.payload).__name__}; expected an object")
    text = json.dumps(operation.payload, allow_nan=False)
    if len(text) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"payload of {len(text)} bytes; at most {MAX_PAYLOAD_BYTES} are taken")
    if "\\u0000" in text:
        raise ValueError("payload holds the character NUL, which a database cannot store")
    payload = json.loads(text)
    kind = Kind(operation.kind)
    _CHECKS[kind](payload, size_hw)
    return replace(operation, kind=kind, payload=payload)


def _check_made(payload: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    _check_name("mask", payload["mask"])
    check_mask(payload["rle"], size_hw)
    for name in ("clicks", "strokes"):
        _check_count(name, payload.get(name, 0))
    for name in ("predicted_iou", "stability_score"):
        _check_number(name, payload.get(name))
    if not isinstance(payload.get("model_id", ""), str):
        raise ValueError("model_id: expected a text")
    if not isinstance(payload.get("prompts", []), list):
        raise ValueError("prompts: expected a list")
    if payload.get("origin", Origin.MADE) not in [*Origin]:
        raise ValueError(f"origin {payload['origin']!r}: expected one of {', '.join(Origin)}")


def _check_named(payload: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    _check_name("mask", payload["mask"])


def _check_merge(payload: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    names = payload["masks"]
    if not isinstance(names, list) or len(names) < 2:
        raise ValueError("masks: expected a list of two or more names")
    for name in names:
        _check_name("masks", name)
    if len(set(names)) != len(names):
        raise ValueError("masks: a name is there twice")
    _check_made(payload, size_hw)


def _check_split(payload: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    _check_name("mask", payload["mask"])
    parts = payload["into"]
    if not isinstance(parts, list) or len(parts) < 2 or not all(isinstance(part, dict) for part in parts):
        raise ValueError("into: expected a list of two or more {mask, rle}")
    for part in parts:
        _check_made(part, size_hw)
    if len({part["mask"] for part in parts}) != len(parts):
        raise ValueError("into: a name is there twice")


def _check_activity(payload: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    for pair in _pairs("inputs", payload["inputs"]):
        if pair[0] is None:
            raise ValueError("inputs: expected [seconds, mask or null]")
        _check_number("inputs", pair[0])
        if pair[1] is not None:
            _check_name("inputs", pair[1])
    for pair in _pairs("hidden", payload.get("hidden", [])):
        for each in pair:
            if each is None:
                raise ValueError("hidden: expected [seconds, seconds]")
            _check_number("hidden", each)


def _check_note(payload: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    if not isinstance(payload["text"], str):
        raise ValueError("text: expected a text")


def _refuse(payload: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    raise ValueError("kind 'fix': the server alone makes it, when a reviewer begins to fix a submission")


def _check_nothing(payload: Mapping[str, Any], size_hw: tuple[int, int]) -> None:
    pass


_CHECKS: Mapping[Kind, Callable[[Mapping[str, Any], tuple[int, int]], None]] = {
    Kind.ADD: _check_made,
    Kind.CHANGE: _check_made,
    Kind.REMOVE: _check_named,
    Kind.ACCEPT: _check_named,
    Kind.REJECT: _check_named,
    Kind.MERGE: _check_merge,
    Kind.SPLIT: _check_split,
    Kind.UNDO: _check_nothing,
    Kind.REDO: _check_nothing,
    Kind.ACTIVITY: _check_activity,
    Kind.NOTE: _check_note,
    Kind.FIX: _refuse,
}


def _check_name(field: str, value: object) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or "\0" in value:
        raise ValueError(f"{field} {value!r:.80}: expected a text of 1 to {MAX_NAME} characters")


def _check_count(field: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
        raise ValueError(f"{field} {value!r:.80}: expected a whole number from 0 to {_MAX_COUNT}")


def _check_number(field: str, value: object) -> None:
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool) or not _is_finite(value)):
        raise ValueError(f"{field} {value!r:.80}: expected a number")


def _is_finite(value: float) -> bool:
    return abs(value) < 1e300 and math.isfinite(value)


def _pairs(field: str, value: object) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise ValueError(f"{field}: expected a list of pairs")
    return value
