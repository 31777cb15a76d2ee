"""Photos become tasks of `gigamask annotate`: the first ones before the page opens, the others while people work."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.progress import log
from stages.assisted_manual.guidelines import GUIDELINES
from stages.ingest.files import find_photos
from stages.ingest.ingest import IngestProgress, IngestReport, ingest_photos
from storage.dataset import Dataset
from storage.workspace.records import RoundSpec, RoundState, TaskSpec
from storage.workspace.workspace import Workspace

ROUND_NAME = "photos"
"""Name of the round that `annotate PHOTOS` opens, and extends with further photos."""
FIRST_PHOTOS = 8
"""Number of photos that are ingested before the page opens."""
MAX_PHOTOS = 256
"""Largest number of photos that are ingested together afterwards: each time twice as many, up to a whole shard."""
NICENESS = 10
"""Niceness of the thread that ingests while people work, so that clicks have the processor first."""


class _Stopped(Exception):
    """End of the server; the same command continues."""


class PhotosToTasks:
    """Ingests photos and asks about them, in portions that grow."""

    def __init__(self, dataset: Dataset, workspace: Workspace, photos: Sequence[Path]) -> None:
        self._dataset, self._workspace, self._photos = dataset, workspace, photos
        self._portion = FIRST_PHOTOS
        self._left = len(find_photos(photos)[0]) if photos else 0
        self._stop = threading.Event()

    def begin(self) -> None:
        """Ingest photos until there is something to ask about."""
        while self._left > 0 and not self._take_portion():
            pass

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Ingest the photos that are left during the block; the end of the block stops that after a photo."""
        thread = threading.Thread(target=self._take_all, name="photos", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _take_all(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # Linux alone has priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            while self._left > 0:
                self._take_portion()
        except _Stopped:
            return
        except Exception as error:  # people go on with what is there
            log(f"the other photos cannot be ingested now ({error}); the same command tries again")

    def _take_portion(self) -> int:
        """Ingest some photos more, and return how many images that adds to the round."""
        report = ingest_photos(self._photos, self._dataset, progress=self._check, max_new=self._portion)
        self._left = self._left - self._portion if report.new_shards else 0
        self._portion = min(MAX_PHOTOS, 2 * self._portion)
        self._dataset.fold()
        added = ask_about_images(self._dataset, self._workspace)
        if added:
            log(f"round {ROUND_NAME!r}: {added} images more")
        if self._left <= 0:
            _tell(report)
        return added

    def _check(self, _: IngestProgress) -> None:
        if self._stop.is_set():
            raise _Stopped


def ask_about_images(dataset: Dataset, workspace: Workspace) -> int:
    """Open a round over the images that no round has, or extend the one opened before; return how many they are."""
    rounds = [each for each in workspace.rounds.read_all() if each.state is not RoundState.CANCELLED]
    asked = {task.image_id for each in rounds for task in workspace.rounds.tasks(each.round_id)}
    rows = dataset.query("SELECT image_id, height, width FROM images ORDER BY source").to_pylist()
    tasks = tuple(TaskSpec(**row) for row in rows if row["image_id"] not in asked)
    if not tasks:
        return 0
    mine = [each for each in rounds if each.name == ROUND_NAME and each.state is RoundState.OPEN]
    if mine:
        workspace.rounds.extend(mine[-1].round_id, tasks)
    else:
        spec = RoundSpec(stage="assisted_manual", name=ROUND_NAME, guidelines=GUIDELINES, tasks=tasks)
        workspace.rounds.open(spec)
    return len(tasks)


def _tell(report: IngestReport) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons().items())
    log(f"ingest: {report.images} images, {len(report.rejects)} rejects{f' ({reasons})' if reasons else ''}")
