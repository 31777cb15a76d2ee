"""A small run of the harness: one photo of each kind, and some mutated ones."""

from pathlib import Path

import pytest

from tests.hostile.harness import MAX_PEAK_MIB, run
from tests.hostile.photos import KINDS, hostile_photos, mutated_photos


@pytest.mark.slow
def test_hostile_photos_are_images_or_rejects_and_end_nothing(tmp_path: Path) -> None:
    sums = run(tmp_path, photos=len(KINDS), mutated=52, threads=2, seed=1)
    assert sums["images"] + sums["rejects"] == sums["photos"] == len(KINDS) + 52
    assert (sums["unanswered"], sums["deaths"], sums["faults"]) == (0, 0, 0)
    assert sums["images"] > 0
    assert sums["rejects"] > len(KINDS) / 2
    assert 0 < sums["peak_mib"] <= MAX_PEAK_MIB


def test_the_same_seed_makes_the_same_photos() -> None:
    assert list(mutated_photos(60, seed=3)) == list(mutated_photos(60, seed=3))
    assert list(mutated_photos(60, seed=3)) != list(mutated_photos(60, seed=4))
    assert [name for name, _ in hostile_photos(3, seed=0)] == ["00000-bomb.png", "00001-lying.png", "00002-noted.png"]
