"""`gigamask evaluate`: models against people's masks, each with another model or the classical baseline beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from engine.automatic.config import GenerateConfig
from engine.evaluation import automatic as automatic_evaluation
from engine.evaluation import scores
from engine.evaluation.automatic import AutomaticEvaluation, evaluate_automatic
from engine.evaluation.classical import FelzenszwalbSegmenter
from engine.evaluation.clicked import Evaluation, evaluate_source
from engine.evaluation.proposals import Proposer, SamProposer
from engine.evaluation.scores import Estimate
from engine.evaluation.source import FolderSource
from engine.interactive.segment import Segmenter
from engine.interactive.zoom import make_segmenter
from engine.model.weights import load_model
from flows.config.evaluate import BASELINE, EvaluateConfig
from flows.progress import log


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one model was found to do."""

    model: str
    """What tables and plots call it: its name, or its model_id where another of the same name is measured, too."""
    clicks: Evaluation
    automatic: AutomaticEvaluation | None
    """None where it was not asked for."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A model, and what stands beside it: measured on the same masks, at most as many automatic masks counted."""

    measured: Measured
    beside: Measured | None

    def click_differences(self, domain: str | None = None) -> dict[str, Estimate]:
        """How much more the model has than what stands beside it: each figure of a domain, or of all masks."""
        if self.beside is None:
            return {}
        pair = (self.beside.clicks, self.measured.clicks)
        before, after = ([score for score in each.scores if domain in (None, score.domain)] for each in pair)
        config = self.measured.clicks.config
        return {name: scores.paired_difference(before, after, name, config.seed) for name in config.figure_names}

    def automatic_differences(self, domain: str | None = None) -> dict[str, Estimate | None]:
        """The same for the automatic masks."""
        if self.beside is None or self.beside.automatic is None or self.measured.automatic is None:
            return {}
        pair = (self.beside.automatic, self.measured.automatic)
        return automatic_evaluation.difference(*pair, self.measured.clicks.config.seed, domain=domain)


def evaluate_models(names: Sequence[str], data: Path, settings: EvaluateConfig) -> list[Result]:
    """One Result a name, all on the same masks.

    Raises:
        ValueError: an unknown model, or a folder without masks.
    """
    everyone = dict.fromkeys([*names, *([settings.beside] if settings.beside else [])])
    contenders = {name: _contender(name, settings.generate) for name in everyone}
    called = _called(contenders)
    source = FolderSource(folder=data)
    images = source.images()
    results = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        clicks = {}
        for name, contender in contenders.items():
            on_progress = _shown(bar, f"{name}: clicks")
            clicks[name] = evaluate_source(contender.segmenter, source, settings.evaluate, on_progress=on_progress)

        def automatic(name: str, at_most: Mapping[str, int] | None = None) -> AutomaticEvaluation | None:
            if not settings.automatic:
                return None
            on_progress = _shown(bar, f"{name}: automatic masks")
            proposer = contenders[name].proposer
            return evaluate_automatic(proposer, images, settings.evaluate, at_most=at_most, on_progress=on_progress)

        for name in names:
            measured, beside = Measured(model=called[name], clicks=clicks[name], automatic=automatic(name)), None
            if (other := settings.beside) and other != name:
                as_many = measured.automatic.made_in_image if measured.automatic else None
                beside = Measured(model=called[other], clicks=clicks[other], automatic=automatic(other, as_many))
            results.append(Result(measured=measured, beside=beside))
    return results


def results_json(results: Sequence[Result]) -> dict[str, Any] | list[dict[str, Any]]:
    """What `--json` prints: an object, or a list of them where several models were asked for."""
    answers = [_result_json(result) for result in results]
    return answers[0] if len(answers) == 1 else answers


def _result_json(result: Result) -> dict[str, Any]:
    content = _measured_json(result.measured)
    if result.beside is None:
        return content | {"beside": None}
    domains = result.measured.clicks.domains
    differences = {
        "overall": _figures_json(result.click_differences()),
        "domains": {domain: _figures_json(result.click_differences(domain)) for domain in domains},
    }
    if result.measured.automatic is not None:
        differences["automatic"] = {
            "overall": _figures_json(result.automatic_differences()),
            "domains": {domain: _figures_json(result.automatic_differences(domain)) for domain in domains},
        }
    return content | {"beside": _measured_json(result.beside) | {"difference": differences}}


def _measured_json(measured: Measured) -> dict[str, Any]:
    automatic = measured.automatic.to_json() if measured.automatic else None
    return measured.clicks.to_json() | {"automatic": automatic}


def _figures_json(figures: Mapping[str, Estimate | None]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, figure in figures.items():
        content |= scores.figure_json(name, figure)
    return content


def _shown(bar: Progress, title: str) -> Callable[[int, int], None]:
    """A bar on a terminal, one line elsewhere."""
    if bar.disable:
        log(f"{title} ...")
    task = bar.add_task(title, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


@dataclass(frozen=True, kw_only=True)
class _Contender:
    """A model, ready for both kinds of questions."""

    segmenter: Segmenter
    proposer: Proposer


def _called(contenders: Mapping[str, _Contender]) -> dict[str, str]:
    """A trained model mostly has its parent's name, and the two are measured side by side: ids tell them apart."""
    names = [contender.segmenter.name for contender in contenders.values()]
    return {
        asked: contender.segmenter.name if names.count(contender.segmenter.name) == 1 else contender.segmenter.model_id
        for asked, contender in contenders.items()
    }


def _contender(name: str, generate: GenerateConfig) -> _Contender:
    if name == BASELINE:
        classical = FelzenszwalbSegmenter()
        return _Contender(segmenter=classical, proposer=classical)
    model = load_model(name)
    return _Contender(segmenter=make_segmenter(model), proposer=SamProposer(model=model, config=generate))
