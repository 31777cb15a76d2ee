"""Progress of the commands that keep a dataset in order, as a user sees it."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import progress
from flows.cli.main import app
from storage.dataset import Dataset
from tests.small_dataset import small_dataset
from tests.stages.release.conftest import Released, released

__all__ = ["released"]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A dataset with an object that a losing attempt left; each step of the commands shows a line."""
    dataset = small_dataset(tmp_path / "data")
    dataset.fold()
    for path in sorted((tmp_path / "data" / "data").rglob("*.tar"))[:1]:
        path.with_name(f"g0-ffffffffffff{path.suffix}").write_bytes(b"")
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    return dataset


def told(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stderr


def shows(lines: str, *expected: str) -> bool:
    return all(re.search(f"^{each}(, .+ left)?$", lines, re.MULTILINE) for each in expected)


def test_gc_says_how_far_it_is(dataset: Dataset) -> None:
    lines = told("gc", "--delete", "--dataset", dataset.uri)
    assert shows(lines, r"gc: 0/\d+ records read", "gc: 0/1 objects measured", "gc: 0/1 objects deleted"), lines


def test_a_withdrawal_says_how_far_it_is(dataset: Dataset) -> None:
    lines = told("withdraw", "--where", "area_px > 0", "--reason", "a test", "--dataset", dataset.uri)
    assert re.search(r"^withdraw: looking for masks for .+, \d+ fit so far$", lines, re.MULTILINE)
    assert shows(lines, r"withdraw: 0/36 masks looked at", r"withdraw: \d+/\d+ records folded"), lines


@pytest.mark.parametrize("option", [["--dry-run"], []])
def test_an_erasure_says_how_far_it_is(option: list[str], dataset: Dataset) -> None:
    key = dataset.query("SELECT key FROM images LIMIT 1")["key"][0].as_py()
    lines = told("erase", "--image", key, "--reason", "a wish", *option, "--dataset", dataset.uri)
    assert shows(lines, "erase: 2/3 image shards read", r"erase: 1/\d+ tars searched"), lines
    assert option or shows(lines, r"erase: 1/\d+ tars overwritten"), lines


def test_the_check_of_a_release_says_how_far_it_is(released: Released, dataset: Dataset) -> None:
    lines = told("release", "--verify", str(released.out))
    assert shows(lines, r"release: 0/\d+ MiB compared with their checksums", "release: 5/6 images read"), lines
