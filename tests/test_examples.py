"""examples/: each file runs as its first lines say, on real photos."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gigamask
from tests.paths import PHOTOS, ROOT
from tests.tiny_network import save_tiny_model

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: object) -> str:
    """Run an example in its own process, as a user does; its standard output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[str, str]:
    """The address of the dataset that the query example makes, and what the example prints."""
    uri = str(tmp_path_factory.mktemp("examples") / "dataset")
    return uri, run_example("query_a_dataset.py", PHOTOS, uri, tiny, 4)


def test_every_example_says_how_it_is_called_and_has_a_test() -> None:
    tests = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"python examples/{path.name} " in path.read_text()
        assert f'run_example("{path.name}"' in tests


def test_one_photo_is_masked_by_the_seed(tmp_path: Path) -> None:
    out = tmp_path / "overlay.png"
    printed = run_example("mask_one_image.py", PHOTOS / "nuts" / "nuts_0.jpg", out, "seed", 6)
    count = re.match(r"(\d+) masks of nuts_0.jpg", printed)
    assert count is not None
    assert int(count[1]) > 0
    overlay, photo = gigamask.read_photo(out), gigamask.read_photo(PHOTOS / "nuts" / "nuts_0.jpg")
    assert overlay.shape == photo.shape
    assert (overlay != photo).any()


def test_a_dataset_is_made_queried_and_walked_over(made: tuple[str, str]) -> None:
    uri, printed = made
    assert printed.startswith("9 images, rejects by reason: {}")
    masks = gigamask.Dataset.open(uri).query("SELECT count(*) AS masks FROM masks")["masks"][0].as_py()
    walked = [int(number) for number in re.findall(r": (\d+) masks, mean colour of the largest", printed)]
    assert len(walked) > 0
    assert sum(walked) == masks


def test_a_model_is_trained_on_a_snapshot(made: tuple[str, str], tiny: Path, tmp_path: Path) -> None:
    uri, _ = made
    printed = run_example("train_on_a_snapshot.py", uri, tmp_path / "work", tiny, 2)
    assert re.search(r"trained-[0-9a-f]{12}: trained on \d+ images, \d+ held out", printed)
    assert "weights:" in printed


def test_masks_that_a_filter_drops_are_withdrawn(made: tuple[str, str]) -> None:
    uri, _ = made
    printed = run_example("custom_post_filter.py", uri)
    counts = re.search(r"(\d+) masks in snapshot \S+, (\d+) now: (\d+) withdrawn", printed)
    assert counts is not None
    were, are, withdrawn = map(int, counts.groups())
    assert withdrawn > 0
    assert were - are == withdrawn
