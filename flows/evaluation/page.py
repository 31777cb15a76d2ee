"""The HTML page of an evaluation: one file with figures, plots and tables, without scripts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.evaluation.automatic import IOU_THRESHOLDS, AutomaticSummary
from engine.evaluation.boundaries import TOLERANCE
from engine.evaluation.clicked import Evaluation
from engine.evaluation.scores import Estimate, Summary
from flows.evaluation import plots
from flows.evaluation.compare import Measured, Result
from flows.evaluation.plots import Series
from flows.evaluation.tables import Row, automatic_table, click_table
from flows.pages.markup import card, document, note, table, text, tile, write_page
from flows.words import duration

SOURCES = (
    "Clicks: section 7 of “Segment Anything” (Kirillov et al. 2023, arXiv:2304.02643). Boundary IoU: Cheng et al., "
    f"CVPR 2021, bands of {TOLERANCE:.0%} of the image's diagonal. AR@100: COCO's, without classes. Intervals: 95 %, "
    "bootstrap over images."
)


@dataclass(frozen=True, kw_only=True)
class GroupPlot:
    """Description of a plot that shows one metric by domain and mask size."""

    figure: str
    """Name of the plotted figure in the summaries."""
    title: str
    axis: str
    """Label of the plot's axis."""
    about: str
    """Caption below the plot."""


CLICK_PLOTS = (
    GroupPlot(
        figure="miou_1_chosen",
        title="One click, chosen",
        axis="mean IoU of the mask shown first",
        about="The candidate ranked first. By domain and by the mask's fraction of the image.",
    ),
    GroupPlot(
        figure="miou_1_best3",
        title="One click, best of 3",
        axis="mean IoU of the best of three",
        about="A click may mean a whole, a part or a sub-part.",
    ),
    GroupPlot(
        figure="boundary_iou",
        title="One click, edges",
        axis="mean boundary IoU of the mask shown first",
        about="Of the candidate ranked first: the IoU of the bands along the edges alone.",
    ),
)
AUTOMATIC_PLOTS = (
    GroupPlot(
        figure="share_50",
        title="Automatic masks that match",
        axis="fraction with IoU ≥ .50",
        about="With a mask of any annotator.",
    ),
    GroupPlot(
        figure="ar_100",
        title="Average recall",
        axis="AR@100",
        about="Of ground truth, over IoU .50 to .95; the 100 best ranked masks.",
    ),
)


def write_evaluation_report(results: Sequence[Result], destination: Path, *, data: Path) -> Path:
    """Write the page to `destination` and return that path; `data` is the folder of the measured images."""
    return write_page(render(results, data=data), destination)


def render(results: Sequence[Result], *, data: Path) -> str:
    """Render the whole page as HTML."""
    sections = [_header(results, data)]
    sections += [_clicks(result) + _automatic(result) for result in results]
    sections += [_tables(results), f"<footer>{text(SOURCES)}</footer>"]
    names = ", ".join(result.measured.model for result in results)
    return document(f"{names} on {data.name} · gigamask evaluation", "".join(sections))


def _header(results: Sequence[Result], data: Path) -> str:
    names = ", ".join(result.measured.model for result in results)
    clicks = results[0].measured.clicks
    return (
        f'<p class="kicker">gigamask evaluation</p><h1>{text(names)} on {text(data.name)}</h1>'
        f'<p class="path">{text(str(data))}</p><div class="tiles">{_tiles(results[0])}</div>'
        + "".join(f'<p class="verdict">{text(verdict(result))}</p>' for result in results)
        + f'<div class="stack">{card(_facts(results, clicks))}</div>'
    )


def verdict(result: Result) -> str:
    """State the result in a sentence or two: the IoU after one click and, if measured, the automatic masks."""
    model = result.measured
    chosen = model.clicks.overall.figures["miou_1_chosen"]
    words = f"{model.model}: mean IoU at one click {chosen.value:.3f}"
    if result.beside:
        words += f", {result.beside.model}'s {result.beside.clicks.overall.figures['miou_1_chosen'].value:.3f}"
        words += f" ({_more(result.click_differences()['miou_1_chosen'])})"
    if model.automatic is None:
        return f"{words}."
    matching = model.automatic.overall.figures["share_50"]
    if matching is None:
        return f"{words}. No mask was made without clicks."
    words += f". Of its automatic masks {matching.value:.1%} match ground truth at IoU .50"
    if result.beside and result.beside.automatic and (more := result.automatic_differences()["share_50"]):
        other = result.beside.automatic.overall.figures["share_50"]
        words += f", of at most as many of {result.beside.model}'s {other.value if other else 0:.1%} ({_more(more)})"
    return f"{words}."


def _more(difference: Estimate) -> str:
    low_high = difference.interval
    interval = "" if low_high is None else f", 95 % interval {low_high[0]:+.3f} to {low_high[1]:+.3f}"
    return f"{difference.value:+.3f}{interval}"


def _tiles(result: Result) -> str:
    measured, beside = result.measured, result.beside
    tiles = tile("images", f"{measured.clicks.overall.images:,}", "Images")
    tiles += tile("masks", f"{measured.clicks.overall.masks:,}", "Ground truth masks")
    for name, label in (("miou_1_chosen", "1 click, chosen"), ("miou_1_best3", "1 click, best of 3")):
        about = f"{beside.model}: {beside.clicks.overall.figures[name].value:.3f}" if beside else ""
        tiles += tile(name, f"{measured.clicks.overall.figures[name].value:.3f}", label, text(about))
    if measured.automatic and (average := measured.automatic.overall.figures["ar_100"]):
        other = beside.automatic.overall.figures["ar_100"] if beside and beside.automatic else None
        about = f"{beside.model}: {other.value:.3f}" if beside and other else ""
        tiles += tile("ar_100", f"{average.value:.3f}", "AR@100, automatic", text(about))
    return tiles


def _facts(results: Sequence[Result], clicks: Evaluation) -> str:
    everyone = {each.model: each for result in results for each in (result.measured, result.beside) if each}
    config, left_out = clicks.config, clicks.left_out
    without = [f"{number:,} {name.replace('_', ' ')}" for name, number in vars(left_out).items() if number]
    facts = [
        ("Models", ", ".join(f"<code>{text(each.clicks.model_id)}</code>" for each in everyone.values())),
        ("Clicks", f"{config.click_policy}; masks of at least {config.min_area_fraction:.2%} of the image"),
        ("Image ids", config.image_ids),
        ("Left out", ", ".join(without) or "nothing"),
        ("Took", ", ".join(f"{text(each.model)} {duration(_seconds(each))}" for each in everyone.values())),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def _seconds(measured: Measured) -> float:
    return measured.clicks.seconds + (measured.automatic.seconds if measured.automatic else 0.0)


def _clicks(result: Result) -> str:
    everyone = [each for each in (result.measured, result.beside) if each]
    groups = {each.model: _groups(each.clicks) for each in everyone}
    drawn = [_group_plot(plot, groups, _labels(_groups(result.measured.clicks))) for plot in CLICK_PLOTS]
    if calibration := result.measured.clicks.calibration:
        about = f"{calibration.candidates:,} candidates; the mean error is {calibration.expected_error:.3f}."
        drawn.append(_plot("Calibration of the IoU head", plots.plot_calibration(calibration), about))
    over = "".join(_over_clicks(everyone))
    return f'<h2>{text(result.measured.model)}: clicks</h2><div class="plots">{"".join(drawn)}</div>{over}'


def _over_clicks(everyone: Sequence[Measured]) -> Iterator[str]:
    """Render the curves over the number of clicks, if several numbers were measured."""
    numbers = sorted({1, *everyone[0].clicks.config.clicks})
    if len(numbers) > 1:
        names = {str(number): "miou_1_chosen" if number == 1 else f"miou_{number}" for number in numbers}
        panels = {
            group: [
                Series(model=each.model, figures={clicks: summary.figures[name] for clicks, name in names.items()})
                for each in everyone
                if (summary := _groups(each.clicks).get(group)) is not None
            ]
            for group in ("all", *everyone[0].clicks.domains)
        }
        about = "Each further click goes into the larger error of the mask shown."
        yield f'<div class="stack">{_plot("More clicks, by domain", plots.plot_over_clicks(panels), about)}</div>'


def _automatic(result: Result) -> str:
    everyone = [(each.model, each.automatic) for each in (result.measured, result.beside) if each and each.automatic]
    if not everyone:
        return ""
    groups = {model: {"all": it.overall, **it.domains, **it.sizes} for model, it in everyone}
    labels = {name: name for name in groups[everyone[0][0]]}
    recall = plots.plot_recall({model: it.overall.recall_T for model, it in everyone}, IOU_THRESHOLDS)
    found = "By all automatic masks; each matches at most one ground truth mask."
    drawn = [_plot("Ground truth found", recall, found)]
    drawn += [_group_plot(plot, groups, labels) for plot in AUTOMATIC_PLOTS]
    about = "Masks made without a click; of the other model at most as many, those it ranks highest."
    title = f"{text(result.measured.model)}: automatic masks"
    return f'<h2>{title}</h2>{note(about)}<div class="plots">{"".join(drawn)}</div>'


def _group_plot(
    plot: GroupPlot,
    groups: Mapping[str, Mapping[str, Summary]] | Mapping[str, Mapping[str, AutomaticSummary]],
    labels: Mapping[str, str],
) -> str:
    """Render the plot of one figure by group, with every model; `groups` holds the groups of each model."""
    series = [_series(model, of_model, plot.figure) for model, of_model in groups.items()]
    return _plot(plot.title, plots.plot_groups(series, of=plot.axis, labels=labels), plot.about)


def _groups(evaluation: Evaluation) -> dict[str, Summary]:
    return {"all": evaluation.overall, **evaluation.domains, **evaluation.sizes}


def _labels(groups: Mapping[str, Summary]) -> dict[str, str]:
    return {name: f"{name} ({summary.masks:,})" for name, summary in groups.items()}


def _series(model: str, groups: Mapping[str, Summary] | Mapping[str, AutomaticSummary], name: str) -> Series:
    return Series(model=model, figures={group: summary.figures.get(name) for group, summary in groups.items()})


def _tables(results: Sequence[Result]) -> str:
    tables: list[tuple[str, Callable[[Sequence[Result]], list[Row]]]] = [("Clicks", click_table)]
    if any(result.measured.automatic for result in results):
        tables.append(("Automatic masks", automatic_table))
    cards = []
    for title, make in tables:
        titles, *rows = make(results)
        cards.append(
            card(f"<h3>{title}</h3>{table(titles, [[text(cell) for cell in row] for row in rows], kind='figures')}")
        )
    about = (
        "Means over masks with 95 % intervals. Differences are over the same masks, positive where the first is higher."
    )
    return f'<h2>All figures</h2>{note(about)}<div class="stack">{"".join(cards)}</div>'


def _plot(title: str, svg: str, about: str) -> str:
    return f'<div class="card"><h3>{text(title)}</h3>{svg}<p>{text(about)}</p></div>'
