"""The state of a dataset that a report shows, noted in the page, so that a page of the newest state is left as it is.

This module imports nothing that draws.
"""

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from storage.dataset import Dataset
from storage.tables.fold_log import newest_done

HEAD_BYTES = 1024
"""Number of bytes at the beginning of a page in which the state is noted."""


def report_path(dataset: Dataset) -> Path:
    """Return the default path of the report of a dataset.

    The report of a local dataset is written to the folder of the dataset, that of a dataset on S3 to the working
    folder, under a name of its own.
    """
    scheme, _, place = dataset.uri.rpartition("://")
    return Path(f"report-{re.sub(r'[^A-Za-z0-9._]+', '-', place)}.html") if scheme else Path(place) / "report.html"


def default_title(dataset: Dataset) -> str:
    """Return the heading of a report that got no other: the dataset's name."""
    return PurePosixPath(dataset.uri).name or dataset.uri


def report_state(dataset: Dataset, title: str) -> str:
    """Return a digest of what a report shows, 64 hex digits: the newest fold, the plans, and who writes it for whom.

    Reports with equal digests differ in the time of writing alone.
    """
    done = newest_done(dataset.store)
    plans = sorted(plan.plan_id for plan in dataset.plans())  # shards that are planned and not made are on the page
    seen = [version("gigamask"), dataset.uri, title, done.number, done.folder, plans]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def is_current(path: Path, dataset: Dataset) -> bool:
    """Tell whether there is a report at a path that shows the newest state of a dataset under its default title."""
    try:
        with path.open("rb") as page:
            head = page.read(HEAD_BYTES)
    except OSError:
        return False
    return note_of(report_state(dataset, default_title(dataset))).encode() in head


def note_of(state: str) -> str:
    """Return the HTML element that notes a state in a page's head."""
    return f'<meta name="gigamask-state" content="{state}">'
