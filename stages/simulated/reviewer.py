"""A simulated reviewer: answers both questions about what others submitted, then accepts, fixes or sends back.

question -> verdict -> ... -> accept, or fix what is wrong, or send back with a reason
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.evaluation.annotator import iou
from stages.simulated.annotator import GIVEN_UP, SimulatedAnnotator, Truth, decode_mask, largest_masks
from stages.simulated.behaviour import Behaviour, TimeModel
from stages.simulated.client import Client, Refused
from storage import rle


@dataclass(frozen=True, kw_only=True)
class ReviewPolicy:
    """Settings of a simulated reviewer. Fractions are in [0, 1]."""

    min_iou: float = 0.75
    """IoU with some true mask from which a mask is called good."""
    missing_iou: float = 0.5
    """IoU with the best submitted mask below which an object counts as missing."""
    wrong_answer_fraction: float = 0.02
    """Probability of a verdict that is the opposite of what the reviewer saw."""
    send_back_fraction: float = 0.5
    """Fraction of wrong and missing masks among all, above which the reviewer does not fix but sends back."""


class SimulatedReviewer:
    """One simulated reviewer; the account needs the role reviewer."""

    def __init__(
        self,
        client: Client,
        truth: Truth,
        policy: ReviewPolicy,
        behaviour: Behaviour,
        *,
        rng: np.random.Generator,
        stop: threading.Event,
        times: TimeModel | None = None,
    ) -> None:
        self._client, self._truth, self._policy, self._rng = client, truth, policy, rng
        self._max_masks = behaviour.max_masks
        self._hands = SimulatedAnnotator(client, truth, behaviour, rng=rng, stop=stop, times=times)
        self._stop = stop

    def work(self) -> Mapping[str, int]:
        """Review what waits until nothing does; return how many submissions were accepted, fixed and sent back.

        Raises:
            Refused: The server refuses what the reviewer does.
            Stopped: The run ended while the server did not answer.
        """
        ended = {"accepted": 0, "fixed": 0, "sent_back": 0}
        while not self._stop.is_set():
            # "Is anything missing?" shows a whole submission, and is asked of each once
            items = self._client.get("/api/reviews/nothing_missing", count=1)
            if not items:
                break
            try:
                outcome = self._review(items[0])
                submission_id = int(items[0]["submission"]["submission_id"])
                self._client.log.write("reviewed", submission_id=submission_id, outcome=outcome)
                ended[outcome] += 1
            except Refused as refused:
                if refused.code not in (*GIVEN_UP, "conflict", "invalid"):  # another reviewer was faster
                    raise
        return ended

    def _review(self, item: Mapping[str, Any]) -> str:
        """Review one submission, and return what became of it."""
        submission = int(item["submission"]["submission_id"])
        masks = [decode_mask(mask["rle"]) for mask in item["masks"]]
        truths = [rle.decode(mask) for mask in self._wanted(int(item["image_id"]))]
        good = [any(iou(mask_HW, true_HW) >= self._policy.min_iou for true_HW in truths) for mask_HW in masks]
        missing = sum(all(iou(mask_HW, true_HW) < self._policy.missing_iou for mask_HW in masks) for true_HW in truths)

        # Verdicts
        for mask, is_good in zip(item["masks"], good, strict=True):
            self._answer(submission, "mask_good", is_good, mask=mask["mask"])
        self._answer(submission, "nothing_missing", missing == 0)

        # What becomes of the submission
        faults = good.count(False) + missing
        if not faults:
            self._client.post(f"/api/submissions/{submission}/accept", {})
            return "accepted"
        if faults > self._policy.send_back_fraction * (len(masks) + missing):
            reason = f"simulated: {good.count(False)} masks are wrong, {missing} objects are missing"
            self._client.post(f"/api/submissions/{submission}/send-back", {"reason": reason})
            return "sent_back"
        self._hands.fix(self._client.post(f"/api/submissions/{submission}/fix", {}))
        return "fixed"

    def _wanted(self, image_id: int) -> Sequence[rle.Rle]:
        """Return the objects that the reviewer expects to find: the largest, as annotators do."""
        return largest_masks(self._truth, image_id, self._max_masks)

    def _answer(self, submission: int, question: str, is_yes: bool, *, mask: str = "") -> None:
        """Send a verdict, now and then the wrong one."""
        if self._rng.random() < self._policy.wrong_answer_fraction:
            is_yes = not is_yes
        body = {"submission_id": submission, "question": question, "answer": "yes" if is_yes else "no"}
        self._client.post("/api/reviews/verdicts", body | ({"mask": mask} if mask else {}))
        self._client.log.write("verdict", mask=mask, **body)
