"""The section on the generator's filters: how many candidates each removed, and which setting would keep more."""

from engine.automatic.diagnostics import Diagnostics
from engine.automatic.filters import Filter
from flows.pages.markup import card, note, table
from flows.report.contents import THRESHOLDS, ReportContents
from flows.words import percent, sentence

ALWAYS_SHOWN = (
    Filter.FAILED_PREDICTED_IOU,
    Filter.FAILED_STABILITY,
    Filter.CUT_BY_CROP_EDGE,
    Filter.DUPLICATE_IN_CROP,
    Filter.DISSOLVED,
)
"""Filters that always have a row; any other filter has a row only if it removed something."""


def render(contents: ReportContents) -> str:
    """Render the section as HTML; "" where no generator made the masks."""
    counts = contents.stats.diagnostics
    if counts is None or not counts.candidates:
        return ""
    left = counts.candidates
    rows = [_row("Candidates", "three masks for each point of the grid", 0, left, counts.candidates)]
    for each, taken in counts.taken.items():
        left -= taken
        if taken or each in ALWAYS_SHOWN:
            rows.append(_row(sentence(each.label), each.meaning, taken, left, counts.candidates))
    cleaned = f"{counts.cleaned:,} had specks or holes cleaned"
    rows.append(_row("Kept", cleaned, 0, counts.kept, counts.candidates))
    about = "Every candidate mask of this run, in the order of the filters. Percentages are of all candidates."
    funnel = table(("Filter", "Takes", "#Taken", "#", "#Left", ""), rows, kind="funnel")
    return f"<h2>What the filters took</h2>{note(about)}{card(funnel)}"


def explain_losses(counts: Diagnostics, *, advise: bool) -> str:
    """State how many candidates the filters kept, and which filter removed the most.

    Args:
        counts: Candidates and removals of the mask generator.
        advise: Whether to add which setting keeps more masks.
    """
    lost, taken = max(counts.taken.items(), key=lambda item: item[1])
    kept = f"{counts.kept:,} of {counts.candidates:,} candidate masks kept ({percent(counts.kept, counts.candidates)})"
    if not taken:
        return f"{kept}."
    setting = THRESHOLDS.get(lost.removeprefix("failed_"), "")
    advice = f"; a lower generate.{setting} keeps more" if advise and setting else ""
    return f"{kept}; {lost.label} took most, {percent(taken, counts.candidates)}{advice}."


def _row(label: str, meaning: str, taken: int, left: int, candidates: int) -> tuple[str, ...]:
    before = left + taken
    meter = f"--full:{100 * before / candidates:.2f}%;--left:{100 * left / before if before else 0:.2f}%"
    fraction = percent(taken, candidates) if taken else ""
    return label, meaning, f"{taken:,}" if taken else "–", fraction, f"{left:,}", f'<i style="{meter}"></i>'  # noqa: RUF001
