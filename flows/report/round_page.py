"""The page of a round: how far it is, what the work took, and how well annotators agree."""

from collections.abc import Sequence
from datetime import UTC, datetime

from flows.pages.markup import card, document, note, table, text, tile
from flows.report.sections import audit
from flows.words import duration, moment
from stages.rounds.agreement import Estimate
from stages.rounds.quality import AnnotatorFigures, Figures, RoundReport

_NONE = "-"
_WORK = (
    "#Answers",
    "#Made",
    "#Accepted",
    "#Edited",
    "#Rejected",
    "#Seconds a mask",
    "#Median",
    "#90th percentile",
    "#Masks an hour",
    "#Clicks a mask",
)
"""Columns of the cells that `_cells` makes."""


def render_round(report: RoundReport, *, now: datetime | None = None) -> str:
    """Render the whole page."""
    name = report.name or "Round"
    written = now or datetime.now(UTC)
    body = (
        f'<p class="kicker">gigamask round</p><h1>{text(name)}</h1>'
        f'<p class="path">{text(report.round_id)} · {text(report.stage)}</p>'
        f'<div class="tiles">{_tiles(report)}</div><p class="verdict">{text(_verdict(report))}</p>'
        f"{_audit(report)}"
        f"<h2>Work</h2>{card(_work(report))}"
        f"<h2>Annotators</h2>{card(_annotators(report.annotators))}"
        f"<h2>Agreement</h2>{card(_agreement(report))}"
        f"{_review(report)}"
        f"<footer>Written {moment(written)}.</footer>"
    )
    return document(f"{name} · gigamask round", body)


def _tiles(report: RoundReport) -> str:
    progress, total = report.progress, report.total
    return (
        tile("done", f"{progress.done:,} of {progress.slots:,}", "Answers")
        + tile("masks-made", f"{total.masks_made:,}", "Masks made")
        + tile("seconds-per-mask", _number(total.seconds_per_mask, " s"), _seconds_label(total), "paper: 34 to 14 s")
        + tile("masks-per-image", _number(total.masks_per_image), "Masks per image", "paper: 20 to 72")
    )


def _seconds_label(figures: Figures) -> str:
    return "Simulated seconds a mask" if figures.simulated else "Seconds a mask"


def _verdict(report: RoundReport) -> str:
    progress = report.progress
    end = f" At this pace it ends on {moment(report.ends_at)}." if report.ends_at else ""
    late = f" {progress.open_branches} lines of late work wait to be merged." if progress.open_branches else ""
    held = f"{progress.leased} answers are being made, {progress.free} are free, {progress.skips} were skipped"
    simulated = " Seconds on this page are simulated: a time model made them up." if report.total.simulated else ""
    return f"The round is {report.state}: {held}.{end}{late}{simulated}"


def _audit(report: RoundReport) -> str:
    return audit.render(report.audit, report.progress.tasks) if report.audit is not None else ""


def _work(report: RoundReport) -> str:
    rows = [("All", report.total)]
    rows += [("Prefilled images", report.prefilled)] if report.prefilled and report.empty else []
    rows += [("Images that began empty", report.empty)] if report.empty else []
    work = table(("", *_WORK), [(name, *_cells(figures)) for name, figures in rows])
    columns = ("", "#Masks an image", "#Seconds an image")
    by_image = [(name, _number(each.masks_per_image), _number(each.seconds_per_image)) for name, each in rows]
    return (
        work
        + note("Seconds a mask: all active time by the masks made. Median and percentile: the work on one mask alone.")
        + table(columns, by_image, kind="narrow")
        + note("An image's masks are those made, accepted and edited; its seconds are those of all work on it.")
    )


def _annotators(annotators: Sequence[AnnotatorFigures]) -> str:
    work = [(text(each.annotator), *_cells(each.figures)) for each in annotators]
    quality = [
        (
            text(each.annotator),
            f"{each.skips:,} ({100 * each.skip_rate:.0f} %)",
            _estimate(each.agreement),
            _estimate(each.gold_found),
        )
        for each in annotators
    ]
    columns = ("Annotator", "#Skipped", "#Agreement with others", "#Known masks found")
    return table(("Annotator", *_WORK), work) + table(columns, quality)


def _cells(figures: Figures) -> tuple[str, ...]:
    return (
        f"{figures.answers:,}",
        f"{figures.masks_made:,}",
        f"{figures.prefill_accepted:,}",
        f"{figures.prefill_edited:,}",
        f"{figures.prefill_rejected:,}",
        _number(figures.seconds_per_mask),
        _number(figures.median_s),
        _number(figures.p90_s),
        _number(figures.masks_per_hour),
        _number(figures.clicks_per_mask),
    )


def _agreement(report: RoundReport) -> str:
    rows = [
        ("Masks with a partner in another annotator's answer", report.agreement),
        ("IoU of masks that belong together", report.matched_iou),
        ("Known masks of gold images that annotators have, too", report.gold_found),
    ]
    cells = [(name, _estimate(each), f"{each.images:,}" if each else "0") for name, each in rows]
    work = f"{duration(report.total.active_s)} of active work." if report.total.active_s else ""
    return table(("", "#Mean and 95 % interval", "#Images"), cells, kind="narrow") + note(
        f"Agreement says how alike annotators work, not how right they are. {work}"
    )


def _review(report: RoundReport) -> str:
    """Render what reviewers said and did; "" for a round that nobody reviewed."""
    review = report.review
    if review is None:
        return ""
    ends = [("Accepted", review.accepted), ("Fixed by a reviewer", review.fixed), ("Sent back", review.sent_back)]
    verdicts = [
        ("Is this mask good?", review.good_masks, review.bad_masks),
        ("Is nothing missing?", review.complete_images, review.incomplete_images),
    ]
    tables = table(("", "#Submissions"), [(what, f"{count:,}") for what, count in ends], kind="narrow")
    tables += table(("", "#Yes", "#No"), [(what, f"{yes:,}", f"{no:,}") for what, yes, no in verdicts], kind="narrow")
    fixing = f"Reviewers spent {duration(review.fix_s)} on fixes. " if review.fix_s else ""
    words = f"{fixing}Seconds and agreement of annotators are those of the work as it was submitted."
    return f"<h2>Review</h2>{card(tables + note(words))}"


def _number(value: float | None, unit: str = "") -> str:
    return _NONE if value is None else f"{value:.3g}{unit}"


def _estimate(value: Estimate | None) -> str:
    return _NONE if value is None else f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"
