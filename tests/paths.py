"""Paths that tests read: the repository's root, the test data and the sample photos."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Root of the repository; subprocesses get it as PYTHONPATH."""
DATA = ROOT / "tests" / "data"
"""Test data."""
PHOTOS = DATA / "photos"
"""Openly licensed photos with masks, one folder per domain; see its ATTRIBUTION.md."""
SAM_PARAMETERS = DATA / "sam_state_dict.json"
"""Parameter names and shapes of the released networks."""
