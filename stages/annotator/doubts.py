"""The order of review: how sure the dataset's mask verifier is of each submitted mask, the least sure first.

Judging a mask takes the network several looks at its image, so a thread of its own does it, and a queue is ordered by
what is known when it is read. Without a verifier, questions come in the order of submission.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from engine.interactive.zoom import open_with_sam
from engine.verifier.features import mask_features
from engine.verifier.verifier import Verifier
from stages.annotator.sessions import Sessions
from stages.semi_automatic.find_verifier import find_verifier
from storage.dataset import Dataset
from storage.rle import Rle
from storage.workspace.records import Submission
from storage.workspace.workspace import Workspace

logger = logging.getLogger(__name__)

MAX_WAITING = 500
"""Most submissions that wait to be judged; later ones follow when a queue is read again."""


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """Mask with its scores, as the verifier reads it."""

    rle: Rle
    predicted_iou: float
    stability_score: float


class Doubts:
    """Probabilities that submitted masks are good, by the verifier; safe to use from several threads."""

    def __init__(self, dataset: Dataset, workspace: Workspace, sessions: Sessions) -> None:
        self._dataset, self._workspace, self._sessions = dataset, workspace, sessions
        self._judging = ThreadPoolExecutor(1, thread_name_prefix="doubts")
        self._known: dict[int, Future[Mapping[str, float]]] = {}
        self._versions: list[str] = []
        self._verifier: Verifier | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the thread; what waits is not judged."""
        self._judging.shutdown(cancel_futures=True)

    def probabilities(self, waiting: Iterable[Submission]) -> Mapping[int, Mapping[str, float]]:
        """Return what is known of submissions, by id and name of the mask; have the others judged.

        A mask that no model made has no probability.
        """
        with self._lock:
            verifier = self._newest_verifier()
            if verifier is None:
                return {}
            unfinished = sum(not future.done() for future in self._known.values())
            for each in waiting:
                if each.submission_id not in self._known and unfinished < MAX_WAITING:
                    self._known[each.submission_id] = self._judging.submit(self._judge, each, verifier)
                    unfinished += 1
            done = {number: future for number, future in self._known.items() if future.done()}
        return {number: future.result() for number, future in done.items() if not future.cancelled()}

    def _newest_verifier(self) -> Verifier | None:
        """Find the verifier again where the dataset has other model versions than before."""
        versions = self._dataset.models.ids()
        if versions != self._versions:
            self._versions = versions
            self._verifier = find_verifier(self._dataset, self._sessions.models.ids())
            self._known.clear()
        return self._verifier

    def _judge(self, submission: Submission, verifier: Verifier) -> Mapping[str, float]:
        """Judge the masks of a submission; nothing for one whose image cannot be read any more."""
        try:
            state = self._workspace.operations.state(
                submission.task_id, submission.annotator, revision=submission.revision
            )
            named = {
                mask.mask: _Scored(rle=mask.rle, predicted_iou=mask.predicted_iou, stability_score=mask.stability_score)
                for mask in state.masks
                if mask.predicted_iou is not None and mask.stability_score is not None
            }
            if not named:
                return {}
            task = self._workspace.rounds.task(submission.task_id)
            pixels_HW3 = self._sessions.pictures.get(task.image_id).pixels_HW3
            opened = open_with_sam(self._sessions.models.get(verifier.card.model_id), pixels_HW3)
            judged = verifier.probability(mask_features(opened, pixels_HW3, list(named.values())))
        except Exception:
            # The order of a queue is a convenience: a question whose masks cannot be judged is asked all the same.
            logger.exception("the masks of submission %d cannot be judged by the verifier", submission.submission_id)
            return {}
        return {name: float(probability) for name, probability in zip(named, judged, strict=True)}
