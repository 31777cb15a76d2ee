"""Measured models that are kept: measured once, the same figures again, and anew where anything differs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from flows.loop.figures import Arm
from flows.loop.kept import measure_once
from tests.flows.loop.test_figures import measured


def test_a_model_is_measured_once_and_anew_with_other_settings(tmp_path: Path) -> None:
    calls = list[int]()

    def measure() -> Arm:
        calls.append(1)
        arm = measured("new masks", 1, 0, 0.6)
        unpredicted = replace(arm.clicked[0], predicted_iou_M=(float("nan"), 0.5, np.float32(0.1)))
        return replace(arm, clicked=(unpredicted, *arm.clicked[1:]))

    first, again = (measure_once(tmp_path, ["m", 1], measure) for _ in range(2))
    assert len(calls) == 1
    assert json.dumps(first.to_json()) == json.dumps(again.to_json()) == json.dumps(measure().to_json())
    assert np.isnan(again.clicked[0].predicted_iou_M[0])
    assert again.clicked[1:] == first.clicked[1:]
    calls.clear()
    measure_once(tmp_path, ["m", 2], measure)
    assert len(calls) == 1
