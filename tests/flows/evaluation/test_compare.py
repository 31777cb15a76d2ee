"""`gigamask evaluate`: the model and what stands beside it, as tables, JSON and a page."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from engine.evaluation.automatic import FIGURES
from engine.model.weights import load_model, save_model
from flows.config.evaluate import load_evaluate_config
from flows.evaluation.compare import Result, evaluate_models, results_json
from flows.evaluation.page import render, verdict
from flows.evaluation.tables import automatic_table, click_table, to_markdown
from tests.paths import PHOTOS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small photographs of one domain and one of another, whose name has to be escaped."""
    folder = tmp_path_factory.mktemp("labelled")
    for domain, stems in {"nuclei": ("nuc_670ebd9d674b", "nuc_9bb6e39d5f44"), "<b>$x$": ("nuc_815524d88283",)}.items():
        (folder / domain).mkdir()
        for stem in stems:
            for suffix in (".png", ".json"):
                shutil.copy(PHOTOS / "nuclei" / f"{stem}{suffix}", folder / domain)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[Result]:
    """The seed, Felzenszwalb's segmentation beside it; every threshold off, so that there are masks to measure."""
    loose = ["generate.points_per_side=5", "generate.predicted_iou_threshold=0", "generate.stability_threshold=0"]
    settings = load_evaluate_config(
        assignments=loose, automatic=True, evaluate={"clicks": (1, 2), "max_masks_per_image": 4}
    )
    return evaluate_models(["seed"], folder, settings)


@pytest.mark.slow
def test_what_stands_beside_makes_as_many_masks_on_every_photograph(results: list[Result]) -> None:
    measured, beside = results[0].measured.automatic, results[0].beside.automatic
    assert measured.overall.masks_made > 10
    for photograph, made in beside.made_in_image.items():
        assert 0 < made <= measured.made_in_image[photograph]
    assert [score.image for score in beside.found] == [score.image for score in measured.found]


@pytest.mark.slow
def test_the_json_keeps_the_models_figures_at_the_top_and_the_others_under_beside(results: list[Result]) -> None:
    content = json.loads(json.dumps(results_json(results), allow_nan=False))
    assert content["model"] == "seed"
    assert {"images", "masks", "miou_1_chosen", "miou_1_chosen_interval", "noc85"} <= set(content["overall"])
    assert set(content["domains"]) == {"nuclei", "<b>$x$"}
    assert set(FIGURES) <= set(content["automatic"]["overall"])
    beside = content["beside"]
    assert beside["model"] == "felzenszwalb"
    difference = beside["difference"]["overall"]["miou_2"]
    assert difference == pytest.approx(content["overall"]["miou_2"] - beside["overall"]["miou_2"], abs=2e-5)
    difference = beside["difference"]["automatic"]["domains"]["nuclei"]["share_50"]
    shares = [each["automatic"]["domains"]["nuclei"]["share_50"] for each in (content, beside)]
    assert difference == pytest.approx(shares[0] - shares[1], abs=2e-5)


def test_tables_have_a_row_for_each_group_and_model_and_their_difference(results: list[Result]) -> None:
    titles, *rows = click_table(results)
    assert titles[4:] == ["#1 click, chosen", "#1 click, best of 3", "#1 click, boundary IoU", "#2 clicks"]
    assert [row[:2] for row in rows[:3]] == [["all", "seed"], ["all", "felzenszwalb"], ["all", "seed - felzenszwalb"]]
    assert re.fullmatch(r"[+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\]", rows[2][4])
    assert re.fullmatch(r"0\.\d{3}", next(row for row in rows if row[0] == "<b>$x$")[4])  # one photograph: no interval
    assert all(len(row) == len(titles) for row in rows)
    titles, *rows = automatic_table(results)
    assert titles[-2] == "#AR@100"
    assert [row[1] for row in rows[:3]] == ["seed", "felzenszwalb", "seed - felzenszwalb"]
    assert all(len(row) == len(titles) for row in rows)
    lines = to_markdown([titles, *rows]).splitlines()
    assert lines[1].startswith("| --- | --- | ---: |")
    assert len(lines) == len(rows) + 2


@pytest.mark.slow
def test_the_page_shows_every_plot_and_escapes_names(results: list[Result], folder: Path) -> None:
    page = render(results, data=folder)
    assert page.count("<svg ") == 8  # three of one click, calibration, over clicks; recall, share, AR@100
    assert "<b>$x$" not in page
    assert "&lt;b&gt;$x$" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert verdict(results[0]) in page.replace("&#x27;", "'")


def test_a_model_beside_another_of_the_same_name_goes_by_its_id(folder: Path, tmp_path: Path) -> None:
    seed = load_model("seed")
    with torch.no_grad():
        seed.sam.mask_decoder.mask_tokens.weight += 0.1
    trained = save_model(tmp_path / "trained.safetensors", seed.sam, seed.card)
    settings = load_evaluate_config(beside="seed", evaluate={"max_images_per_domain": 1, "max_masks_per_image": 1})
    results = evaluate_models([str(tmp_path / "trained.safetensors")], folder, settings)
    assert [row[1] for row in click_table(results)[1:4]] == [
        trained,
        seed.model_id,
        f"{trained} - {seed.model_id}",
    ]
    assert results_json(results)["model"] == "seed"


def test_nothing_stands_beside_when_nothing_is_asked_for_or_it_is_the_model_itself(folder: Path) -> None:
    one_mask = {"max_images_per_domain": 1, "max_masks_per_image": 1}
    for beside in ("none", "felzenszwalb"):
        settings = load_evaluate_config(beside=beside, evaluate=one_mask)
        (result,) = evaluate_models(["felzenszwalb"], folder, settings)
        assert result.beside is None
        assert result.measured.automatic is None
        assert results_json([result])["beside"] is None
        assert [row[1] for row in click_table([result])[1:4]] == ["felzenszwalb"] * 3


def test_settings_that_nobody_owns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown key generate\.point_per_side.*generate\.points_per_side"):
        load_evaluate_config(assignments=["generate.point_per_side=4"])
    with pytest.raises(ValueError, match="preset: got 'fine'; known presets are grid, paper"):
        load_evaluate_config(preset="fine")
    with pytest.raises(ValueError, match="'centre' or 'jittered'"):
        load_evaluate_config(evaluate={"click_policy": "random"})
