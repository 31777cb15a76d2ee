"""The dataset's own JSON files: the same content gives the same bytes, and reading checks format number and schema."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from storage.errors import Corrupt, StoreError

FORMAT = 3
"""Format number of every JSON file of a dataset; a reader refuses a higher one."""
_READ_FORMATS = (1, 2, 3)


def json_bytes(fields: Mapping[str, object]) -> bytes:
    """Write JSON so that the same content gives the same bytes: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: A value is not JSON.
    """
    try:
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"only JSON values can be stored: {error}") from error
    return text.encode()


def read_json(data: bytes, schema: str, where: str) -> dict[str, Any]:
    """Read a dataset's JSON file and check it against `schemas/<schema>.json`; error messages call the file `where`.

    Raises:
        Corrupt: The file is torn or malformed.
        StoreError: The file's format is newer than this version of gigamask knows.
    """
    try:
        fields: dict[str, Any] = json.loads(data)
        file_format = fields["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(f"{where}: not a dataset's file, or a damaged one ({error}); restore it from a copy") from error
    if file_format not in _READ_FORMATS:
        raise StoreError(f"{where}: format {file_format}, this version reads 1 to {FORMAT}; use a newer gigamask")
    fault = best_match(_validator(schema).iter_errors(fields))
    if fault is not None:
        raise Corrupt(f"{where}: {fault.json_path}: {_short(fault.message)}; restore it from a copy")
    return fields


@cache
def _validator(schema: str) -> Draft202012Validator:
    text = resources.files("storage.formats").joinpath("schemas", f"{schema}.json").read_text()
    return Draft202012Validator(json.loads(text))


def _short(message: str) -> str:
    return message if len(message) < 200 else f"{message[:200]}..."


@contextmanager
def corrupt_where_malformed(where: str) -> Iterator[None]:
    """Turn errors about a file's missing or malformed fields into Corrupt.

    Raises:
        Corrupt: A field is missing or has the wrong form.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{where}: a field is missing or has the wrong form ({error}); restore it from a copy") from error
