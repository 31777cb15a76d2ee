"""One configuration composed of each component's own: defaults, then a TOML file, then --set key=value.

Every component keeps its settings in a frozen dataclass beside its code; this file only puts them together,
refuses keys nobody owns (naming the nearest right one) and lets pydantic check the types.
"""

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from engine.automatic.config import PRESETS, GenerateConfig
from engine.model.config import SamConfig
from engine.training.recipes import RECIPES
from engine.training.train import TrainConfig
from flows.evaluation.compare import EvaluateSettings
from stages.cluster.pool import PoolConfig
from stages.ingest.config import IngestConfig
from stages.training.job import DataConfig

Settings = TypeVar("Settings")
Tree = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of `gigamask run` and `gigamask masks`."""

    dataset: str = "gigamask-dataset"
    """Folder or s3:// prefix of the dataset."""
    model: str = "seed"
    """Name of a model (`gigamask models list`) or path of a weights file."""
    preset: Literal["grid", "paper"] = "grid"
    """Where `generate` starts from: `grid` is one 32x32 grid, `paper` adds 4 + 16 crops (appendix B)."""
    ingest: IngestConfig = field(default_factory=IngestConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of `gigamask train`; `train` starts from a recipe."""

    train: TrainConfig
    data: DataConfig = field(default_factory=DataConfig)


def load_training_settings(
    sam: SamConfig, recipe: str, steps: int | None, *, file: Path | None = None, assignments: list[str] | None = None
) -> TrainingSettings:
    """A recipe for this network, then the TOML file, then `--set`. Raises ValueError that names the key."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe: got {recipe!r}; known recipes are {', '.join(RECIPES)}")
    chosen = RECIPES[recipe](sam) if steps is None else RECIPES[recipe](sam, steps)
    given = _read_toml(file) if file else {}
    for assignment in assignments or []:
        _merge(given, _parse_assignment(assignment))
    _refuse_unknown_keys(TrainingSettings, given)
    tree: Tree = {"train": dataclasses.asdict(chosen)}
    _merge(tree, given)
    return validated(TrainingSettings, tree)


def load_run_config(*, file: Path | None = None, assignments: list[str] | None = None, **options: Any) -> RunConfig:
    """Compose a RunConfig; options that are None were not given and change nothing.

    Order, later wins: defaults, the preset, the TOML file, `--set` assignments, named options.
    Raises ValueError that names the key, what was got and what is allowed.
    """
    tree = _read_toml(file) if file else {}
    for assignment in assignments or []:
        _merge(tree, _parse_assignment(assignment))
    _merge(tree, {key: value for key, value in options.items() if value is not None})
    defaults = _preset(tree.get("preset", RunConfig.preset))
    _refuse_unknown_keys(RunConfig, tree)
    tree["generate"] = defaults | tree.get("generate", {})
    return validated(RunConfig, tree)


def load_evaluate_settings(
    *, assignments: list[str] | None = None, preset: str = "grid", **options: Any
) -> EvaluateSettings:
    """Compose the settings of `gigamask evaluate`: the preset, then options, then `--set` assignments.

    Raises ValueError that names the key, what was got and what is allowed.
    """
    tree: Tree = {"generate": _preset(preset)} | options
    for assignment in assignments or []:
        _merge(tree, _parse_assignment(assignment))
    return validated(EvaluateSettings, tree)


def validated(kind: type[Settings], tree: Tree) -> Settings:
    """Build the dataclass `kind` from a tree of plain values; ValueError lists each wrong value on one line."""
    _refuse_unknown_keys(kind, tree)
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise ValueError("settings: " + "; ".join(lines)) from error


def to_tree(config: Any) -> Tree:
    """The plain values of a settings dataclass, ready for JSON."""
    return dataclasses.asdict(config)


def _preset(name: str) -> Tree:
    if name not in PRESETS:
        raise ValueError(f"preset: got {name!r}; known presets are {', '.join(PRESETS)}")
    return dataclasses.asdict(PRESETS[name])


def _describe(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "value"
    message = problem["msg"].removeprefix("Value error, ")
    return (
        f"{where}: got {problem['input']!r}; {message}" if problem["type"] != "value_error" else f"{where}: {message}"
    )


def _read_toml(file: Path) -> Tree:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file}: no such settings file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{file}: not a TOML settings file: {error}") from error


def _parse_assignment(assignment: str) -> Tree:
    """`generate.points_per_side=16` -> {"generate": {"points_per_side": 16}}; values are TOML, bare words are text."""
    key, equals, text = assignment.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"--set {assignment}: expected key=value, such as generate.points_per_side=16")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = None if text in ("none", "null") else text
    for part in reversed(key.split(".")):
        value = {part: value}
    tree: Tree = value
    return tree


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
