"""The checks of the promotion gate, from the scores of single masks."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.evaluation import scores
from engine.evaluation.clicked import Evaluation, LeftOut
from engine.evaluation.config import EvaluationConfig, GateConfig, GateSettings
from engine.evaluation.gate import Check, Costs, Measurement, describe, judge
from engine.evaluation.scores import MaskScore

CONFIG = EvaluationConfig(clicks=(1, 3))
COSTS = Costs(click_s=0.1, parameters=1000)


def evaluation(gain_of: Callable[[str, int], float], *, trust: float = 0.0) -> Evaluation:
    """Make an evaluation of 20 images of two domains with 3 masks each.

    Args:
        gain_of: Function of domain and number of clicks to the gain over the promoted model's IoU.
        trust: Number that is added to each predicted IoU.
    """
    rng = np.random.default_rng(0)
    found = []
    for number in range(20):
        domain = "cells" if number < 15 else "rocks"
        for _ in range(3):
            first, noise = rng.uniform(0.4, 0.6), rng.normal(scale=0.01)
            one, three = first + gain_of(domain, 1) + noise, first + 0.2 + gain_of(domain, 3) + noise
            found.append(
                MaskScore(
                    domain=domain,
                    image=f"{domain}/{number}",
                    annotator=0,
                    area_fraction=float(first),
                    predicted_iou_M=(one + trust,),
                    iou_M=(one,),
                    iou_after=(one, one, three),
                    boundary_iou=0.5,
                    iou_box=None,
                    iou_box_refined=None,
                )
            )
    names = CONFIG.figure_names
    return Evaluation(
        model="m",
        model_id="m-1",
        config=CONFIG,
        overall=scores.summarise(found, names, 0),
        domains=scores.summarise_by(found, lambda score: score.domain, names, 0),
        sizes={},
        calibration=scores.calibrate(found),
        left_out=LeftOut(),
        scores=tuple(found),
        seconds=0.0,
    )


SAME = evaluation(lambda domain, clicks: 0.0)
BETTER = evaluation(lambda domain, clicks: 0.05)


def judged(frozen: Evaluation, known: Evaluation = SAME, costs: Costs = COSTS) -> dict[str, Check]:
    promoted = Measurement(frozen=SAME, known=SAME, costs=COSTS)
    checks = judge(promoted, Measurement(frozen=frozen, known=known, costs=costs), GateConfig())
    return {check.name: check for check in checks}


def failed(checks: dict[str, Check]) -> list[str]:
    return [name for name, check in checks.items() if not check.passed]


def test_a_gain_on_too_few_photographs_is_no_proof() -> None:
    promoted, candidate = (
        Measurement(frozen=replace(each, scores=each.scores[:9]), known=SAME, costs=COSTS) for each in (SAME, BETTER)
    )
    checks = {check.name: check for check in judge(promoted, candidate, GateConfig())}
    assert failed(checks) == ["photographs"]
    assert checks["photographs"].says == "the evaluation set has 3 photographs with masks, at least 6 are needed"
    assert not failed({check.name: check for check in judge(promoted, candidate, GateConfig(min_images=3))})


def test_a_model_that_gains_everywhere_passes_every_check() -> None:
    checks = judged(BETTER)
    assert list(checks) == [
        *("photographs", "gain at 1 click", "gain at 3 clicks", "domain cells", "domain rocks"),
        *("known before", "calibration", "latency", "size"),
    ]
    assert failed(checks) == []
    gain = checks["gain at 1 click"]
    assert gain.value == pytest.approx(0.05)
    assert gain.interval == pytest.approx((0.05, 0.05))
    assert describe(list(checks.values())).startswith("promoted: the gain at 1 click is +0.050 [+0.050, +0.050]")


def test_an_equal_model_is_refused() -> None:
    assert failed(judged(SAME)) == ["gain at 1 click", "gain at 3 clicks"]


def test_a_gain_at_one_click_alone_is_not_enough() -> None:
    checks = judged(evaluation(lambda domain, clicks: 0.05 if clicks == 1 else 0.0))
    assert failed(checks) == ["gain at 3 clicks"]
    assert describe(list(checks.values())) == (
        "refused: the gain at 3 clicks is +0.000 [+0.000, +0.000], which does not lie above 0.000"
    )


def test_a_domain_that_falls_keeps_a_model_out_although_the_mean_gains() -> None:
    checks = judged(evaluation(lambda domain, clicks: 0.2 if domain == "cells" else -0.03))
    assert failed(checks) == ["domain rocks"]
    assert "domain rocks changes by -0.030" in describe(list(checks.values()))
    assert failed(judged(evaluation(lambda domain, clicks: 0.2 if domain == "cells" else -0.019))) == []


def test_forgetting_calibration_latency_and_size_each_keep_a_model_out() -> None:
    assert failed(judged(BETTER, known=evaluation(lambda domain, clicks: -0.03))) == ["known before"]
    assert failed(judged(evaluation(lambda domain, clicks: 0.05, trust=0.1))) == ["calibration"]
    assert failed(judged(BETTER, costs=replace(COSTS, click_s=0.2))) == ["latency"]
    assert failed(judged(BETTER, costs=replace(COSTS, parameters=2000))) == ["size"]


def test_a_single_photograph_proves_no_gain() -> None:
    one = replace(BETTER, scores=BETTER.scores[:3])
    was = Measurement(frozen=replace(SAME, scores=SAME.scores[:3]), known=SAME, costs=COSTS)
    checks = judge(was, Measurement(frozen=one, known=SAME, costs=COSTS), GateConfig())
    assert "fewer than two photographs" in describe(checks)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gate.max_domain_drop: got 2, expected a number in \[0, 1\]"):
        GateConfig(max_domain_drop=2)
    with pytest.raises(ValueError, match=r"expected those of gate.clicks, \[3\]"):
        GateSettings(evaluate=EvaluationConfig(clicks=(1,)))
