"""Settings of `gigamask models promote`."""

from collections.abc import Sequence
from pathlib import Path

from engine.evaluation.config import GateSettings
from flows.config.load import build, read_given, to_tree


def load_gate_settings(*, file: Path | None = None, assignments: Sequence[str] | None = None) -> GateSettings:
    """Load GateSettings from the sources that `flows.config.load` lists.

    Raises:
        ValueError: A setting is wrong; the message names the key, what was got and what is allowed.
    """
    return build(GateSettings, read_given(file, assignments, {}), start=to_tree(GateSettings()))
