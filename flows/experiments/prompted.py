"""The experiments that prompt for each mask of the ground truth: points (section 7.1) and boxes (section 7.4).

datasets -> `engine.evaluation.clicked` -> mIoU of each dataset -> mean over datasets -> table beside published figures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rich.console import Console
from rich.progress import Progress

from engine.automatic.config import GenerateConfig
from engine.evaluation import scores
from engine.evaluation.clicked import Evaluation, evaluate
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.scores import Estimate
from flows.evaluation.compare import load_contender, shown
from flows.evaluation.tables import CLICK_TITLES, Row
from flows.experiments.datasets import Datasets
from flows.experiments.published import BOXES, POINTS, Published
from flows.experiments.tables import estimate_cell, published_cell

PAPER_POINTS = (1, 2, 3, 5, 9)
"""Numbers of points after which the paper measures the mean IoU."""
ALL_DATASETS = "mean of datasets"
"""Name of the table's row of the mean over datasets."""
Experiment = Literal["points", "boxes"]


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """Figures of one model on every dataset."""

    experiment: Experiment
    evaluation: Evaluation
    mean: dict[str, Estimate]
    """Mean of the datasets' figures, by the name of the metric."""

    def to_json(self) -> dict[str, Any]:
        """Make the document that `--json` prints for one model."""
        names = figure_names(self.experiment, self.evaluation.config)
        mean: dict[str, Any] = {"datasets": len(self.evaluation.domains)}
        for name in names:
            mean |= scores.figure_json(name, self.mean[name])
        return {
            "experiment": self.experiment,
            "model": self.evaluation.model,
            "model_id": self.evaluation.model_id,
            "datasets": {
                name: scores.summary_json(summary, names) for name, summary in self.evaluation.domains.items()
            },
            "mean_of_datasets": mean,
            "published": [each.to_json() for each in published(self.experiment)],
            "left_out": asdict(self.evaluation.left_out),
            "settings": asdict(self.evaluation.config),
            "interval": "95 %, bootstrap over images, of each dataset apart",
            "seconds": round(self.evaluation.seconds, 2),
        }


def run_prompted(
    experiment: Experiment, models: Sequence[str], datasets: Datasets, config: EvaluationConfig
) -> list[Prompted]:
    """Measure each model on the same masks of every dataset.

    Raises:
        ValueError: A model is unknown, no mask is left to measure, or an image cannot be read.
    """
    contenders = {name: load_contender(name, GenerateConfig()) for name in models}
    measured = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for name, contender in contenders.items():
            progress = shown(bar, f"{name}: {experiment}")
            evaluation = evaluate(contender.segmenter, datasets.images, config, on_progress=progress)
            left_out = replace(evaluation.left_out, unlabelled_pictures=datasets.unlabelled)
            measured.append(summarise(experiment, replace(evaluation, left_out=left_out)))
    return measured


def summarise(experiment: Experiment, evaluation: Evaluation) -> Prompted:
    """Compute the mean over datasets of every figure; each dataset counts once, as in the paper.

    Datasets of fewer than 10 images lose their intervals.
    """
    domains = {
        name: replace(summary, figures=scores.without_small_intervals(summary.figures, summary.images))
        for name, summary in evaluation.domains.items()
    }
    evaluation = replace(evaluation, domains=domains)
    groups = [[score for score in evaluation.scores if score.domain == name] for name in evaluation.domains]
    mean = {
        name: scores.mean_over_groups(
            [(group, scores.figure_values(group, name)) for group in groups], evaluation.config.seed
        )
        for name in figure_names(experiment, evaluation.config)
    }
    return Prompted(experiment=experiment, evaluation=evaluation, mean=mean)


def figure_names(experiment: Experiment, config: EvaluationConfig) -> tuple[str, ...]:
    """Name the metrics of an experiment, in the order of its table."""
    return ("miou_box", "miou_box_refined") if experiment == "boxes" else config.figure_names


def published(experiment: Experiment) -> tuple[Published, ...]:
    """Return the published figures of an experiment."""
    return BOXES if experiment == "boxes" else POINTS


def prompted_table(results: Sequence[Prompted]) -> list[Row]:
    """Build the table: a row for each dataset and model, the mean over datasets, then the published figures."""
    first = results[0]
    names = figure_names(first.experiment, first.evaluation.config)
    others = sorted({name for each in published(first.experiment) for name in each.figures} - {*names})
    titles = [f"#{CLICK_TITLES[name]}" for name in names] + ["#mask AP" for _ in others]
    rows = [["dataset", "method", "#images", "#masks", *titles, "source"]]
    for dataset, overall in first.evaluation.domains.items():
        for result in results:
            summary = result.evaluation.domains[dataset]
            cells = [estimate_cell(summary.figures[name]) for name in names] + [""] * len(others)
            rows.append(
                [dataset, result.evaluation.model, str(overall.images), str(overall.masks), *cells, "measured here"]
            )
    for result in results:
        overall = result.evaluation.overall
        cells = [estimate_cell(result.mean[name]) for name in names] + [""] * len(others)
        rows.append(
            [ALL_DATASETS, result.evaluation.model, str(overall.images), str(overall.masks), *cells, "measured here"]
        )
    for each in published(first.experiment):
        cells = [published_cell(each.figures.get(name)) for name in (*names, *others)]
        rows.append([each.on, each.method, "", "", *cells, each.source])
    return rows
