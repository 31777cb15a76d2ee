"""The HTML report of a dataset, one file: what went in, what came out, and why."""

from datetime import datetime
from pathlib import Path

from flows.pages.markup import write_page
from flows.report.contents import ReportContents
from flows.report.page import render
from flows.report.state import default_title, report_state
from storage.dataset import Dataset


def write_report(dataset: Dataset, destination: Path, *, title: str | None = None, now: datetime | None = None) -> Path:
    """Write the report of the dataset's newest fold to `destination` and return that path; replace an old report.

    Args:
        dataset: Dataset that the report describes.
        destination: Path of the HTML file.
        title: Heading of the page; None for the dataset's own name.
        now: Time of writing to state on the page; None for the present time.

    Raises:
        Corrupt: An image or a mask is not what its row states.
    """
    title = title or default_title(dataset)
    state = report_state(dataset, title)  # before the page is rendered: if it changes meanwhile, the next run writes
    return write_page(render(ReportContents(dataset, now=now), title=title, state=state), destination)
