"""`gigamask experiment points` and `boxes`: figures of each dataset, their mean, and published figures beside them."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.evaluation.config import EvaluationConfig
from flows.cli.main import app
from flows.experiments.datasets import open_datasets
from flows.experiments.prompted import ALL_DATASETS, PAPER_POINTS, prompted_table, run_prompted
from flows.experiments.published import BOXES, POINTS
from tests.paths import PHOTOS


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two datasets: two photographs of nuclei, one of nuts."""
    folder = tmp_path_factory.mktemp("datasets")
    for name, files in {"nuclei": ("nuc_670ebd9d674b", "nuc_9bb6e39d5f44"), "nuts": ("nuts_0",)}.items():
        (folder / name).mkdir()
        for stem in files:
            for file in (PHOTOS / name).glob(f"{stem}.*"):
                shutil.copy(file, folder / name)
    return [folder / "nuclei", folder / "nuts"]


def test_points_reports_each_dataset_and_a_mean_in_which_each_counts_once(places: list[Path]) -> None:
    config = EvaluationConfig(clicks=(1, 3), max_masks_per_image=2)
    (result,) = run_prompted("points", ["seed"], open_datasets(places), config)
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert {name: content["datasets"][name]["masks"] for name in ("nuclei", "nuts")} == {"nuclei": 4, "nuts": 2}
    for name in ("miou_1_chosen", "miou_1_best3", "miou_3"):
        of_each = [content["datasets"][dataset][name] for dataset in ("nuclei", "nuts")]
        assert content["mean_of_datasets"][name] == pytest.approx(sum(of_each) / 2, abs=2e-5)
    assert content["mean_of_datasets"]["miou_3_interval"] is None  # nuts has a single photograph
    assert [each["figures"] for each in content["published"]] == [dict(each.figures) for each in POINTS]
    titles, *rows = prompted_table([result])
    assert [row[0] for row in rows[:3]] == ["nuclei", "nuts", ALL_DATASETS]
    assert rows[3][titles.index("#1 click, chosen")] == "0.581"
    assert rows[3][titles.index("#3 clicks")] == ""
    assert all(len(row) == len(titles) for row in rows)


def test_boxes_has_no_figure_of_clicks_and_keeps_other_metrics_apart(places: list[Path]) -> None:
    config = EvaluationConfig(boxes=True, max_masks_per_image=2)
    (result,) = run_prompted("boxes", ["seed"], open_datasets(places), config)
    assert set(result.mean) == {"miou_box", "miou_box_refined"}
    assert result.mean["miou_box"].value > 0.5  # the seed's boxes on nuclei and nuts: .83 and .91
    titles, *rows = prompted_table([result])
    assert titles[4:] == ["#box", "#box, refined", "#mask AP", "source"]
    assert [row[4:7] for row in rows[3:]] == [["", "", "0.465"], ["", "", "0.447"]]
    assert len(rows) == 3 + len(BOXES)


def test_two_datasets_of_one_name_are_refused(places: list[Path]) -> None:
    with pytest.raises(ValueError, match="two datasets named nuts"):
        open_datasets([*places, places[1]])


def test_the_command_prints_the_papers_points_and_refuses_wrong_use(places: list[Path]) -> None:
    one_mask = ["--max-images", "1", "--max-masks", "1", "--json"]
    run = CliRunner().invoke(app, ["experiment", "points", "--data", str(places[1]), *one_mask])
    assert run.exit_code == 0, run.output
    (content,) = json.loads(run.stdout)
    assert content["settings"]["clicks"] == list(PAPER_POINTS)
    assert {f"miou_{number}" for number in PAPER_POINTS[1:]} <= set(content["mean_of_datasets"])
    wrong = {
        "no such folder": ["--data", "nowhere"],
        "from 1 to 20": ["--data", str(places[1]), "--points", "0"],
        "folder of the images of a COCO JSON": ["--data", str(places[1]), "--images", str(places[1])],
    }
    for message, options in wrong.items():
        refused = CliRunner().invoke(app, ["experiment", "points", *options])
        assert isinstance(refused.exception, ValueError)
        assert message in str(refused.exception)
