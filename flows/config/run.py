"""Settings of `gigamask run`, `ingest` and `masks`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.automatic.config import GenerateConfig
from flows.config.load import build, preset_tree, read_given, validated
from stages.cluster.pool import PoolConfig
from stages.ingest.config import IngestConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of a run of the fully automatic stage, ingest included."""

    dataset: str = "gigamask-dataset"
    """Folder or s3:// prefix of the dataset."""
    model: str = "seed"
    """Name of a model (`gigamask models list`) or path of a weights file."""
    preset: Literal["grid", "paper"] = "grid"
    """Starting point of `generate`: `grid` is one 32x32 grid, `paper` adds 4 + 16 crops (appendix B)."""
    ingest: IngestConfig = field(default_factory=IngestConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)


def load_run_config(*, file: Path | None = None, assignments: Sequence[str] | None = None, **options: Any) -> RunConfig:
    """Load a RunConfig in the order that `flows.config.load` states; `generate` starts from the preset.

    Raises:
        ValueError: names the key, what was got and what is allowed.
    """
    given = read_given(file, assignments, options)
    return build(RunConfig, given, start={"generate": preset_tree(given.get("preset", RunConfig.preset))})


def parse_run_config(config: object) -> object:
    """Turn the plain values of a RunConfig into one, and return anything else as it is, for pydantic to judge.

    Raises:
        ValueError: an unknown key or wrong values.
    """
    return validated(RunConfig, config) if isinstance(config, dict) else config
