"""Settings of `gigamask run`, `ingest` and `masks`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.automatic.config import GenerateConfig
from flows.config.load import build, preset_tree, read_given
from stages.cluster.pool import PoolConfig
from stages.ingest.config import IngestConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of `gigamask run`, `ingest` and `masks`: dataset, model, preset, and the settings of each component."""

    dataset: str = "gigamask-dataset"
    """Folder or s3:// prefix of the dataset."""
    model: str = "seed"
    """Name of a model, as `gigamask models list` shows it, or path of a weights file."""
    preset: Literal["grid", "paper"] = "grid"
    """Preset that `generate` starts from: `grid` is one 32x32 grid, `paper` adds 4 + 16 crops (appendix B)."""
    ingest: IngestConfig = field(default_factory=IngestConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)


def load_run_config(*, file: Path | None = None, assignments: Sequence[str] | None = None, **options: Any) -> RunConfig:
    """Load a RunConfig from the sources that `flows.config.load` lists; `generate` starts from the preset.

    Raises:
        ValueError: A setting is wrong; the message names the key, what was got and what is allowed.
    """
    given = read_given(file, assignments, options)
    return build(RunConfig, given, start={"generate": preset_tree(given.get("preset", RunConfig.preset))})
