"""The loader of all settings. Later sources win: defaults, preset or recipe, TOML file, --set, named options.

Every component keeps its settings in a frozen dataclass beside its code. The other files of this folder compose these
dataclasses for the commands. This file refuses unknown keys, and names the nearest known key or else all known keys;
pydantic checks the types.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from engine.automatic.config import PRESETS

Settings = TypeVar("Settings")
Tree = dict[str, Any]
"""Settings as plain values: nested dictionaries by field name."""


def read_given(file: Path | None, assignments: Sequence[str] | None, options: Mapping[str, Any]) -> Tree:
    """Read the settings that the user gave, as a tree.

    A value of `options` takes precedence over one of `assignments`, and that over one of the file.

    Args:
        file: TOML file; None for no file.
        assignments: Texts of the `--set` options; None for none.
        options: Named options; the value None means that the option was not given.

    Raises:
        ValueError: The file or an assignment cannot be read; the message states what was expected.
    """
    given = _read_toml(file) if file else {}
    for assignment in assignments or ():
        _merge(given, _parse_assignment(assignment))
    _merge(given, _without_none(options))
    return given


def build(kind: type[Settings], given: Tree, *, start: Tree) -> Settings:
    """Build a settings dataclass.

    Args:
        kind: The dataclass.
        given: Values that the user gave.
        start: Values of a preset or recipe, used where the user gave none.

    Raises:
        ValueError: A setting is wrong; the message names the key, what was got and what is allowed.
    """
    _refuse_unknown_keys(kind, given)
    tree = dict(start)
    _merge(tree, given)
    return validated(kind, tree)


def validated(kind: type[Settings], tree: Tree) -> Settings:
    """Build the dataclass `kind` from a tree of plain values.

    Raises:
        ValueError: A key is unknown, or values are wrong; the message lists every wrong value on one line.
    """
    _refuse_unknown_keys(kind, tree)
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise ValueError("settings: " + "; ".join(lines)) from error


def to_tree(config: Any) -> Tree:
    """Turn a settings dataclass into plain values, ready for JSON."""
    return dataclasses.asdict(config)


def preset_tree(name: str) -> Tree:
    """Return the generator settings of a preset as plain values.

    Raises:
        ValueError: There is no such preset; the message names the known presets.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: got {name!r}; known presets are {', '.join(PRESETS)}")
    return dataclasses.asdict(PRESETS[name])


def _describe(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "value"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where}: got {problem['input']!r}; {message}"


def _read_toml(file: Path) -> Tree:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{file}: no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{file}: not a TOML settings file: {error}") from error


def _parse_assignment(assignment: str) -> Tree:
    """Parse `generate.points_per_side=16` into {"generate": {"points_per_side": 16}}.

    The value is read as TOML; a value that is a bare word is read as text.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"--set {assignment}: expected key=value, such as generate.points_per_side=16")
    value: Any
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = None if text in ("none", "null") else text
    *outer, name = key.split(".")
    tree: Tree = {name: value}
    for part in reversed(outer):
        tree = {part: tree}
    return tree


def _without_none(options: Mapping[str, Any]) -> Tree:
    """Drop the options whose value is None, at every depth."""
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if value is not None
    }


def _merge(tree: Tree, other: Tree) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _refuse_unknown_keys(kind: Any, tree: Tree, prefix: str = "") -> None:
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for key, value in tree.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(fields)}"
            raise ValueError(f"settings: unknown key {prefix}{key}; {hint}")
        if dataclasses.is_dataclass(fields[key].type):
            if not isinstance(value, dict):
                raise ValueError(
                    f"settings: {prefix}{key}: got {value!r}, expected settings such as {prefix}{key}.NAME=..."
                )
            _refuse_unknown_keys(fields[key].type, value, f"{prefix}{key}.")
