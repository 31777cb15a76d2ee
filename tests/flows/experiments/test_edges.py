"""`gigamask experiment edges`: two models on a picture that two people divided."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from engine.evaluation.config import EvaluationConfig
from flows.cli.main import app
from flows.experiments import edges
from flows.experiments.datasets import open_datasets
from storage import rle

PUBLISHED = ["SAM ViT-H", "gPb-OWT-UCM", "people, each against the others"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of a bright disc; two people drew it, one of them a pixel larger."""
    for number, centre in enumerate(((60, 50), (90, 60))):
        picture = np.full((120, 160, 3), 60, dtype=np.uint8)
        cv2.circle(picture, centre, 30, (200, 180, 160), -1)
        cv2.imwrite(str(tmp_path / f"disc{number}.png"), picture)
        annotations = []
        for annotator, radius in enumerate((30, 31)):
            disc = cv2.circle(np.zeros((120, 160), np.uint8), centre, radius, 1, -1).astype(bool)
            for mask in (disc, ~disc):
                runs = rle.to_coco(rle.encode(mask))
                segmentation = {"size": [120, 160], "counts": runs}
                annotations.append({"segmentation": segmentation, "annotator": annotator})
        labels = {"image": {"image_id": number, "height": 120, "width": 160}, "annotations": annotations}
        (tmp_path / f"disc{number}.json").write_text(json.dumps(labels))
    cv2.imwrite(str(tmp_path / "new.png"), picture)  # without labels
    return tmp_path


@pytest.mark.slow
def test_the_command_measures_the_seed_and_the_gradient(folder: Path) -> None:
    few = ["--data", str(folder), "--thresholds", "9"]
    run = CliRunner().invoke(app, ["experiment", "edges", *few, "--json"])
    assert run.exit_code == 0, run.output
    seed, gradient = json.loads(run.stdout)
    assert (seed["model"], gradient["model"]) == ("seed", "gradient")
    assert gradient["images"] == 2
    assert gradient["people"] == 4
    assert gradient["ods"] > 0.9  # both outlines are within .0075 of the diagonal, 1.5 pixels
    assert len(gradient["recall"]) == 9
    assert gradient["thresholds"] == 9
    assert gradient["left_out"]["unlabelled_pictures"] == 1
    assert seed["published"][0]["figures"]["ods"] == 0.768
    table = CliRunner().invoke(app, ["experiment", "edges", *few, "--model", "gradient"])
    lines = table.stdout.splitlines()
    assert lines[2].startswith(f"| {folder.name} | gradient | 2 | 4 | 9 |")
    assert [line.split("|")[2].strip() for line in lines[3:6]] == PUBLISHED


def test_people_are_compared_with_each_other(folder: Path) -> None:
    run = CliRunner().invoke(app, ["experiment", "edges", "--data", str(folder), "--model", "people", "--json"])
    assert run.exit_code == 0, run.output
    (people,) = json.loads(run.stdout)
    assert (people["model"], people["images"], people["people"]) == ("people", 2, 4)
    assert people["ods"] > 0.9
    assert people["ap"] is None


def test_several_datasets_are_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for file in folder.iterdir():
        shutil.copy(file, other)
    run = CliRunner().invoke(app, ["experiment", "edges", "--data", str(folder), "--data", str(other)])
    assert isinstance(run.exception, ValueError)
    assert "expected one: measure the edges of each on its own" in str(run.exception)


def test_an_unknown_model_and_images_of_one_person_end_the_command_before_a_model_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = list[str]()
    monkeypatch.setattr(edges, "evaluate_edges", lambda detector, *_, **__: measured.append(detector.name))
    datasets, config = open_datasets([folder]), EvaluationConfig()
    with pytest.raises(ValueError, match="no-such-model"):
        edges.run_edges(["gradient", "no-such-model"], datasets, config, 9)
    alone = [replace(image, masks_by_annotator={0: image.masks_by_annotator[0]}) for image in datasets.images]
    with pytest.raises(ValueError, match="two people"):
        edges.run_edges(["gradient", "people"], replace(datasets, images=alone), config, 9)
    assert measured == []
