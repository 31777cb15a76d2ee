"""The section of an audit: how much people changed the masks of a random sample, beside the paper's audit."""

import matplotlib as mpl
import numpy as np

from flows.pages.markup import card, note, table
from flows.pages.svg import INK, STYLE, draw_bars, draw_marker, new_figure, to_svg
from flows.words import percent
from stages.rounds.agreement import Estimate
from stages.rounds.audit import BINS, PAPER_FRACTIONS, AuditFigures


def render(figures: AuditFigures, images: int) -> str:
    """Render the section as HTML.

    Args:
        figures: The comparison so far.
        images: Number of images in the sample.
    """
    about = (
        f"Annotators improve every mask of a random sample of images; {figures.images:,} of {images:,} are done. "
        "The figures compare each mask before and after. A rejected mask counts with an IoU of 0."
    )
    if not figures.masks:
        return f"<h2>Audit</h2>{note(about)}"
    paper_90, paper_75 = (f"{100 * fraction:.0f} %" for fraction in PAPER_FRACTIONS)
    rows = [
        ("Masks above 90 % IoU", _percent(figures.above_90), paper_90),
        ("Masks above 75 % IoU", _percent(figures.above_75), paper_75),
        ("Mean IoU", _percent(figures.mean_iou), ""),
    ]
    counts = [
        (what, f"{number:,}", percent(number, figures.masks))
        for what, number in (
            ("Masks compared", figures.masks),
            ("Left as they were", figures.unchanged),
            ("Rejected", figures.rejected),
        )
    ]
    tables = table(("", "#95 % interval", "#The paper"), rows, kind="narrow")
    tables += table(("", "#Masks", "#"), counts, kind="narrow")
    added = f"Annotators also added {figures.added:,} masks, which are not compared. " if figures.added else ""
    method = f"{added}Intervals by bootstrap over images, whose masks belong together."
    plots = f'<div class="plots">{card(tables + note(method))}{card(_histogram(figures))}</div>'
    return f"<h2>Audit</h2>{note(about)}{plots}"


def _histogram(figures: AuditFigures) -> str:
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        draw_bars(axes, np.linspace(0, 1, BINS + 1), np.array(figures.histogram))
        draw_marker(axes, 0.75, "0.75", INK, span=1.0)
        draw_marker(axes, 0.9, "0.9", INK, span=1.0)
        axes.set_xlim(0, 1)
        axes.set_xlabel("IoU of a mask before and after")
        axes.set_ylabel("% of masks")
        return to_svg(figure, "Histogram of the IoU of masks before and after people improved them")


def _percent(value: Estimate | None) -> str:
    return "-" if value is None else f"{100 * value.mean:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"
