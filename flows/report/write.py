"""The HTML report of a dataset: what went in, what came out and why; one file, opened from disk."""

from datetime import datetime
from pathlib import Path, PurePosixPath

from flows.pages.markup import write_page
from flows.report.contents import ReportContents
from flows.report.page import render
from storage.dataset import Dataset


def report_path(dataset: Dataset) -> Path:
    """Return the default path of a report: in the folder of a local dataset, in the working folder for one on S3."""
    return Path("gigamask-report.html") if "://" in dataset.uri else Path(dataset.uri) / "report.html"


def write_report(dataset: Dataset, destination: Path, *, title: str | None = None, now: datetime | None = None) -> Path:
    """Write the report of the dataset's newest fold to `destination`, and return it; an old report is replaced whole.

    Args:
        dataset: what the report is about.
        destination: the HTML file.
        title: heading of the page; None: the dataset's own name.
        now: time of writing; None: the clock's.

    Raises:
        Corrupt: an image or a mask is not what its row says.
    """
    page = render(ReportContents(dataset, now=now), title=title or PurePosixPath(dataset.uri).name or dataset.uri)
    return write_page(page, destination)
