"""The report and the table of a loop: every model that was measured, and the gain in words."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from flows.loop.figures import summarise
from flows.loop.report import render_loop
from flows.loop.table import live_table, make_table
from tests.flows.loop.test_figures import measured


def result_of(*arms: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(summarise(arms)))
    return result


START = measured("start", 0, 0, 0.5)
BETTER, CONTROL = measured("new masks", 1, 0, 0.6), measured("control", 1, 0, 0.55)


def test_the_report_shows_every_model_and_says_what_the_gain_is_worth() -> None:
    page = render_loop(result_of(START, BETTER, CONTROL), "cells & more")
    assert "<h1>cells &amp; more</h1>" in page
    assert 'id="gain">+0.050<' in page
    assert "more than chance explains" in page
    assert page.count("<code>m</code>") == 3
    assert page.count("<svg ") == 6, "curves and gains of three metrics"
    assert "Clicks to IoU .85" not in page, "it was not measured"
    harmed = render_loop(result_of(START, CONTROL, measured("new masks", 1, 0, 0.4)), "cells")
    assert "less than the control" in harmed


def test_the_report_of_a_loop_cut_off_before_a_round_says_so() -> None:
    page = render_loop(result_of(START), "cells")
    assert "No round was measured yet" in page
    assert "<svg " not in page
    assert 'id="gain"' not in page


def test_the_table_has_a_line_for_each_model_by_seed_and_round() -> None:
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(make_table(result_of(measured("start", 0, 1, 0.5), BETTER, CONTROL, START), "cells"))
    lines = [line for line in console.export_text().splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in lines] == ["0", "0", "0", "1"]
    assert [line.split("│")[3].strip() for line in lines][:3] == ["first model", "with new masks", "control"]


def test_without_a_terminal_each_model_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    result = result_of(START)
    with live_table("cells") as show:
        show(result["start"][0], result)
    assert capsys.readouterr().err.startswith("seed 0, round 0, start: ")
