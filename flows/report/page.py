"""The report as one HTML page: all sections in order, without scripts and without files from outside."""

from collections.abc import Callable

from flows.pages.markup import document, text
from flows.report.contents import ReportContents
from flows.report.sections import beside_sa1b, filters, header, images, next_steps, places, rejects
from flows.report.state import note_of
from flows.words import moment

SECTIONS: tuple[Callable[[ReportContents], str], ...] = (
    images.render,
    beside_sa1b.render,
    places.render,
    filters.render,
    rejects.render,
    next_steps.render,
)
"""Sections that follow the header, from the top. A new section is one file and one line in this list."""


def render(contents: ReportContents, *, title: str, state: str) -> str:
    """Render the whole page, with a note of the state that it shows in its head.

    Raises:
        Corrupt: An image or a mask is not what its row states.
    """
    sections = [header.render(contents, title), *(section(contents) for section in SECTIONS), _footer(contents)]
    return document(f"{title} · gigamask report", "".join(sections), head=note_of(state))


def _footer(contents: ReportContents) -> str:
    source = text("Kirillov et al., “Segment Anything”, 2023, arXiv:2304.02643")
    return f"<footer>What is said of SA-1B is from {source}. Written {moment(contents.written_at)}.</footer>"
