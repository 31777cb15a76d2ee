"""Tables of an evaluation's figures: Markdown for the terminal, HTML for the page."""

from collections.abc import Mapping, Sequence

from engine.evaluation.automatic import FIGURES, AutomaticEvaluation, AutomaticSummary
from engine.evaluation.clicked import Evaluation
from engine.evaluation.groups import compare_domains
from engine.evaluation.scores import CLICK_CAP, Estimate, Summary
from flows.evaluation.compare import Measured, Result

Row = list[str]
"""Cells of one row of a table. A table's first row holds titles; a title that begins with # heads numbers."""

CLICK_TITLES = {
    "miou_1_chosen": "1 click, chosen",
    "miou_1_best3": "1 click, best of 3",
    "boundary_iou": "1 click, boundary IoU",
    **{f"miou_{number}": f"{number} clicks" for number in range(2, CLICK_CAP + 1)},
    "miou_box": "box",
    "miou_box_refined": "box, refined",
    "noc85": "NoC@85",
    "noc90": "NoC@90",
}
AUTOMATIC_TITLES = {
    "share_50": "made at IoU .50",
    "recall_50": "found at IoU .50",
    "recall_75": "found at IoU .75",
    "ar_100": "AR@100",
    "boundary_iou": "boundary IoU",
}


def click_table(results: Sequence[Result]) -> list[Row]:
    """Build the table of the metrics after clicks.

    The rows are grouped: first all masks, then each domain, then each mask size. Each group has a row for each model.
    The groups of all masks and of a domain also have a row for each difference between a model and the compared model.
    """
    everyone = _everyone(results)
    names = list(dict.fromkeys(name for each in everyone for name in each.clicks.config.figure_names))
    rows = [["masks of", "model", "#images", "#masks", *(f"#{CLICK_TITLES[name]}" for name in names)]]
    for group in dict.fromkeys(group for each in everyone for group in _click_groups(each.clicks)):
        for each in everyone:
            if summary := _click_groups(each.clicks).get(group):
                cells = [_cell(name, summary.figures.get(name), summary.failures.get(name)) for name in names]
                rows.append([group, each.model, str(summary.images), str(summary.masks), *cells])
        for result in results:
            if result.beside and (group == "all" or group in result.measured.clicks.domains):
                differences = result.click_differences(None if group == "all" else group)
                rows.append([group, _pair(result), "", "", *_difference_cells(names, differences)])
    return rows


def domain_test_table(results: Sequence[Result]) -> list[Row]:
    """Build the table of the tests for a difference between domains; the titles alone where none was tested."""
    rows = [["model", "metric", "#domains", "#largest difference", "#p", "#p, adjusted for all metrics"]]
    for each in _everyone(results):
        clicks = each.clicks
        for test in compare_domains(clicks.scores, clicks.config.figure_names, clicks.config.seed):
            numbers = (f"{test.largest_difference:.3f}", f"{test.p:.4f}", f"{test.p_adjusted:.4f}")
            rows.append([each.model, CLICK_TITLES[test.metric], str(test.groups), *numbers])
    return rows


def automatic_table(results: Sequence[Result]) -> list[Row]:
    """Build the table of the metrics of automatic masks.

    The rows are grouped: first all images, then each domain, then each mask size. In each group, the row of a model is
    followed by the row of the compared model, with at most as many masks. In the groups of all images and of a domain,
    a row with the difference of the two models follows.
    """
    rows = [["masks of", "model", "#images", "#masks made", "#ground truth"]]
    rows[0] += [f"#{AUTOMATIC_TITLES[name]}" for name in FIGURES]
    pairs = [each for result in results for each in (result.measured, result.beside) if each and each.automatic]
    for group in dict.fromkeys(group for each in pairs for group in _automatic_groups(each.automatic)):
        for result in results:
            for each in (result.measured, result.beside):
                summary = _automatic_groups(each.automatic).get(group) if each else None
                if each and summary:
                    numbers = (summary.images, summary.masks_made, summary.masks_of_people)
                    cells = [_cell(name, summary.figures[name]) for name in FIGURES]
                    rows.append([group, each.model, *map(str, numbers), *cells])
            if result.beside and (group == "all" or group in result.measured.clicks.domains):
                differences = result.automatic_differences(None if group == "all" else group)
                rows.append([group, _pair(result), "", "", "", *_difference_cells(FIGURES, differences)])
    return rows


def to_markdown(table: Sequence[Row]) -> str:
    """Render a table as Markdown."""
    titles, *rows = table
    rule = ["---:" if title.startswith("#") else "---" for title in titles]
    lines = [[title.lstrip("#") for title in titles], rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _everyone(results: Sequence[Result]) -> list[Measured]:
    """List all measured models and compared models, each once."""
    named = {each.model: each for result in results for each in (result.measured, result.beside) if each}
    return list(named.values())


def _click_groups(evaluation: Evaluation) -> Mapping[str, Summary]:
    return {"all": evaluation.overall, **evaluation.domains, **evaluation.sizes}


def _automatic_groups(evaluation: AutomaticEvaluation | None) -> Mapping[str, AutomaticSummary]:
    return {"all": evaluation.overall, **evaluation.domains, **evaluation.sizes} if evaluation else {}


def _pair(result: Result) -> str:
    assert result.beside is not None
    return f"{result.measured.model} - {result.beside.model}"


def _cell(name: str, figure: Estimate | None, failures: int | None = None, *, sign: str = "") -> str:
    if figure is None:
        return ""
    form = f"{sign}.{2 if name.startswith('noc') else 3}f"
    interval = "" if figure.interval is None else f" [{figure.interval[0]:{form}}, {figure.interval[1]:{form}}]"
    return f"{figure.value:{form}}{interval}" + ("" if failures is None else f", {failures} failed")


def _difference_cells(names: Sequence[str], differences: Mapping[str, Estimate | None]) -> list[str]:
    return [_cell(name, differences.get(name), sign="+") for name in names]
