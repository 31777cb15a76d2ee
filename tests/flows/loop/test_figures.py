"""Figures of a loop: what is subtracted from what, also when it was cut off, and their plot."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from engine.evaluation.scores import MaskScore
from flows.loop.figures import Arm, WorkedMask, summarise
from flows.loop.plot import write_plot


def measured(arm: str, number: int, seed: int, iou: float) -> Arm:
    scores = tuple(
        MaskScore(
            domain="d",
            image=f"d/{image}",
            annotator=0,
            area_fraction=0.1,
            predicted_iou_M=np.array([0.5, 0.4, 0.3]),
            iou_M=np.array([iou, 0.1, 0.1]),
            iou_after=(iou, iou, iou),
            boundary_iou=0.5,
            iou_box=None,
            iou_box_refined=None,
        )
        for image in range(3)
    )
    worked = tuple(WorkedMask(image=str(image), seconds=10 * (1 - iou), clicks=2) for image in range(3))
    return Arm(round=number, arm=arm, seed=seed, model_id="m", masks=1, decision="", clicked=scores, worked=worked)


def test_the_gain_is_that_of_the_last_round_over_the_seeds_that_completed_it() -> None:
    arms = [measured("start", 0, 0, 0.5)]
    arms += [measured("new masks", 1, 0, 0.6), measured("control", 1, 0, 0.55)]
    arms += [measured("new masks", 2, 0, 0.8), measured("control", 2, 0, 0.5)]
    arms += [measured("new masks", 1, 1, 0.6), measured("control", 1, 1, 0.55), measured("new masks", 2, 1, 0.1)]
    result = summarise(arms)
    assert [arm["round"] for arm in result["start"]] == [0]
    assert len(result["rounds"]) == 7
    assert [gain["miou_1"] for gain in result["gains"]] == pytest.approx([0.05, 0.3])
    assert result["gain_over_control"] == result["gains"][-1]
    assert result["gain_over_control"]["simulated_seconds_per_mask"] == pytest.approx(-3)
    assert result["gain_over_control"]["noc85"] is None, "three clicks are too few to count them"


def test_a_loop_cut_off_before_its_first_control_has_no_gain() -> None:
    result = summarise([measured("start", 0, 0, 0.5), measured("new masks", 1, 0, 0.6)])
    assert (result["gains"], result["gain_over_control"]) == ([], None)


def test_the_plot_has_a_title_for_each_metric_that_was_measured(tmp_path: Path) -> None:
    arms = [measured("start", 0, 0, 0.5), measured("new masks", 1, 0, 0.6), measured("control", 1, 0, 0.55)]
    write_plot(tmp_path / "loop.svg", json.loads(json.dumps(summarise(arms))), "squares")
    texts = [each.text for each in ElementTree.parse(tmp_path / "loop.svg").iter() if each.tag.endswith("text")]
    assert {"squares", "mean IoU, 1 click", "mean IoU, 3 clicks", "simulated seconds a mask"} <= set(texts)
    assert "clicks to IoU .85" not in texts
