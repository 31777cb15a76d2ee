"""The HTML report of a dataset: what went in, what came out and why; one file, opened from disk.

tables -> collect -> draw photographs and figures -> render -> one page
"""

from datetime import datetime
from pathlib import Path, PurePosixPath

from flows.pages.markup import write_page
from flows.report.data import collect
from flows.report.page import render
from storage.dataset import Dataset


def report_path(dataset: Dataset) -> Path:
    """Where a dataset's report goes unless told otherwise: into a local dataset's folder, beside us for one on S3."""
    return Path("gigamask-report.html") if "://" in dataset.uri else Path(dataset.uri) / "report.html"


def write_report(dataset: Dataset, destination: Path, *, title: str | None = None, now: datetime | None = None) -> Path:
    """Write the report of the dataset's newest fold to `destination`, and return it.

    `title` is the dataset's own name unless given. A report that is there is replaced at once, never half.
    """
    page = render(collect(dataset, now=now), title=title or PurePosixPath(dataset.uri).name or dataset.uri)
    return write_page(page, destination)
