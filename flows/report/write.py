"""The HTML report of a dataset, one file: what went in, what came out, and why."""

import re
from datetime import datetime
from pathlib import Path, PurePosixPath

from flows.pages.markup import write_page
from flows.report.contents import ReportContents
from flows.report.page import render
from storage.dataset import Dataset


def report_path(dataset: Dataset) -> Path:
    """Return the default path of the report of a dataset.

    The report of a local dataset is written to the folder of the dataset, that of a dataset on S3 to the working
    folder, under a name of its own.
    """
    scheme, _, place = dataset.uri.rpartition("://")
    return Path(f"report-{re.sub(r'[^A-Za-z0-9._]+', '-', place)}.html") if scheme else Path(place) / "report.html"


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
    page = render(ReportContents(dataset, now=now), title=title or PurePosixPath(dataset.uri).name or dataset.uri)
    return write_page(page, destination)
