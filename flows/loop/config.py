"""Settings of `gigamask loop`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.config.load import build, read_given, to_tree
from flows.config.retrain import RetrainSettings


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Settings of a loop."""

    evaluation_fraction: float = 0.4
    """Fraction of the photographs that never train and that every model is measured on, in (0, 1)."""
    gate_fraction: float = 0.2
    """Fraction of the photographs that never train and that the promotion gate measures on, in (0, 1)."""
    annotators: int = 2
    """Number of simulated annotators who work at the same time."""
    max_masks_per_image: int = 8
    """Largest number of objects that an annotator has in mind on an image, and that are measured on one."""
    measured_images: int = 6
    """Largest number of evaluation images that annotators work on with each model, to measure time and clicks."""
    workspaces: str = ""
    """Address of the databases of the rounds, in which `{name}` stands for `seed_0_pool` and the like:
    postgresql://user@host/loop_{name}; empty for SQLite files in the work folder.
    """
    noc: bool = True
    """Whether to count the clicks to IoU .85, which takes most of the time of measuring."""
    retrain: RetrainSettings = field(default_factory=RetrainSettings)

    def __post_init__(self) -> None:
        if self.workspaces and "{name}" not in self.workspaces:
            raise ValueError(f"workspaces {self.workspaces!r}: expected an address with {{name}} in it")
        fractions = (self.evaluation_fraction, self.gate_fraction)
        if min(fractions) <= 0 or sum(fractions) >= 1:
            raise ValueError(
                f"evaluation_fraction and gate_fraction: got {fractions}, expected two fractions above 0 that leave a "
                "part to annotate"
            )
        for name in ("annotators", "max_masks_per_image", "measured_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")


def load_loop_settings(*, file: Path | None = None, assignments: Sequence[str] | None = None) -> LoopSettings:
    """Load LoopSettings from the sources that `flows.config.load` lists.

    Raises:
        ValueError: A setting is wrong; the message names the key, what was got and what is allowed.
    """
    return build(LoopSettings, read_given(file, assignments, {}), start=to_tree(LoopSettings()))
