"""A simulated annotator: claims tasks, clicks and refines until the mask in mind is there, accepts, rejects, submits.

claim -> look -> click -> choose -> refine -> add -> ... -> submit, or skip
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.evaluation.annotator import iou, next_click
from engine.interactive.segment import Click
from stages.simulated.behaviour import POLICIES, Behaviour, TimeModel, in_mind
from stages.simulated.client import Client, Refused
from stages.simulated.line import Line
from storage import rle
from storage.rle import Rle

Truth = Callable[[int], Sequence[Rle] | None]
"""Function that gives the ground-truth masks of an image; None where the image has no ground truth."""

GIVEN_UP = ("lease_ended", "not_found")
"""Codes of refusals after which an annotator goes on with the next task: a lead or time ended the lease."""
IDLE_S = 1.0
"""Pause of an annotator for whom no task is left, in real seconds."""


class SimulatedAnnotator:
    """One simulated annotator; `work` runs until `stop` is set.

    Args:
        client: The annotator's connection to the server.
        truth: Ground truth, which the annotator has in mind.
        behaviour: How the annotator works.
        rng: Source of randomness.
        stop: Event that ends the work.
        times: Model of the simulated seconds; None for the usual one.
        round_id: Round whose tasks the annotator does; None for those of every open round.
        task_seed: Seed, together with the image's id, of all that is random about a task, so that its masks depend
            neither on the tasks before it nor on the number of attempts; None draws everything from `rng`.
    """

    def __init__(
        self,
        client: Client,
        truth: Truth,
        behaviour: Behaviour,
        *,
        rng: np.random.Generator,
        stop: threading.Event,
        times: TimeModel | None = None,
        round_id: str | None = None,
        task_seed: Sequence[int] | None = None,
    ) -> None:
        self._task_seed = task_seed
        self._client, self._truth, self._behaviour, self._round_id = client, truth, behaviour, round_id
        self._rng, self._stop, self._times = rng, stop, times or TimeModel()
        self._policy = POLICIES[behaviour.policy]
        self._simulated_s = 0.0  # of the present task
        self._inputs: list[list[Any]] = []

    def work(self, *, max_tasks: int | None = None, waits: bool = True) -> int:
        """Do tasks until `stop` is set; return how many were done.

        Args:
            max_tasks: Number of tasks after which the annotator stops; None for no limit.
            waits: Whether to wait for further tasks where none is left.

        Raises:
            Refused: The server refuses what the annotator does.
            Stopped: The run ended while the server did not answer.
        """
        done = 0
        held = self._client.get("/api/tasks/held")
        leases = [lease for lease in held if self._round_id in (None, lease["round_id"])]
        while not self._stop.is_set() and (max_tasks is None or done < max_tasks):
            if not leases:
                leases = self._client.post("/api/tasks/claim", {"count": 2, "round_id": self._round_id})
                for lease in leases:
                    facts = {name: lease[name] for name in ("task_id", "token", "revision")}
                    self._client.log.write("claimed", **facts)
            if not leases:
                if max_tasks is not None or not waits:
                    break
                self._stop.wait(IDLE_S)
                continue
            try:
                self._do_task(leases.pop(0))
            except Refused as refused:
                if refused.code not in GIVEN_UP:
                    raise
                self._client.log.write("gave_up", code=refused.code)
            done += 1
        return done

    def fix(self, lease: Mapping[str, Any]) -> None:
        """Improve the masks that a reviewer's lease begins with, add those that are missing, and submit."""
        self._simulated_s, self._inputs = 0.0, []
        line = self._begin(lease)
        self._improve(line, lease)
        line.submit()

    def _begin(self, lease: Mapping[str, Any]) -> Line:
        return Line(self._client, lease, lost_reply_fraction=self._behaviour.lost_reply_fraction, rng=self._rng)

    def _do_task(self, lease: Mapping[str, Any]) -> None:
        """Do one task from its claim to its end."""
        if self._task_seed is not None:
            lease = self._take_back(lease)
            self._rng = np.random.default_rng([*self._task_seed, int(lease["image_id"])])
        self._simulated_s, self._inputs = 0.0, []
        behaviour, chance = self._behaviour, self._rng.random()
        line = self._begin(lease)
        if chance < behaviour.skip_fraction:
            line.skip("simulated: cannot tell objects apart")
            return
        if self._truth(int(lease["image_id"])) is None:
            line.skip("simulated: the image has no ground truth")
            return
        self._improve(line, lease)
        if self._task_seed is not None and self._stop.is_set():
            return  # the task stays held, and the next attempt begins anew
        if chance > 1 - behaviour.hand_back_fraction:
            line.hand_back()
        else:
            line.submit()

    def _take_back(self, lease: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove the masks that an attempt made which was cut off, and return the lease as it is then."""
        line = self._begin(lease)
        for mask in self._client.get(f"/api/tasks/{line.task_id}/state")["masks"]:
            if mask["origin"] == "made":
                line.do("remove", 0.0, mask=mask["mask"])
        line.send()
        return {**lease, "revision": line.revision}

    def _improve(self, line: Line, lease: Mapping[str, Any]) -> None:
        """Answer the masks that are there, and make those that are missing."""
        state = self._client.get(f"/api/tasks/{line.task_id}/state")
        targets = self._answer_given(line, lease, state["masks"], self._targets(int(lease["image_id"])))
        for number, target_HW in enumerate(targets):
            if self._stop.is_set():
                break
            self._make_mask(line, lease, f"m{line.revision}-{number}", target_HW)
            line.send()
            if self._rng.random() < self._behaviour.pause_fraction:
                self._spend(self._times.pause_s, None)
        line.do("activity", self._simulated_s, inputs=self._inputs, simulated=True)

    def _targets(self, image_id: int) -> list[np.ndarray]:
        """Return the masks that the annotator has in mind, the most prominent first."""
        largest = largest_masks(self._truth, image_id, self._behaviour.max_masks)
        low, high = self._behaviour.boundary_iou
        return [in_mind(rle.decode(mask), float(self._rng.uniform(low, high)), self._rng) for mask in largest]

    def _answer_given(
        self, line: Line, lease: Mapping[str, Any], given: Sequence[Mapping[str, Any]], targets: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Accept, refine or reject the masks that are there; return the targets that none of them covers."""
        left = list(targets)
        for mask in given:
            mask_HW = decode_mask(mask["rle"])
            scores = [iou(mask_HW, target_HW) for target_HW in left]
            best = int(np.argmax(scores)) if scores else -1
            self._spend(self._times.decide_s, mask["mask"])
            if not scores or scores[best] < 0.5:
                line.do("remove" if mask["origin"] == "made" else "reject", self._simulated_s, mask=mask["mask"])
                continue
            target_HW = left.pop(best)
            if scores[best] >= self._behaviour.good_iou:
                if mask["origin"] == "prefill_accepted":
                    line.do("accept", self._simulated_s, mask=mask["mask"])
                continue
            better_HW, payload = self._shape(lease, mask["mask"], target_HW, start_HW=mask_HW)
            if iou(better_HW, target_HW) > scores[best]:
                line.do("change", self._simulated_s, mask=mask["mask"], **payload)
        line.send()
        return left

    def _make_mask(self, line: Line, lease: Mapping[str, Any], name: str, target_HW: np.ndarray) -> None:
        """Make the mask of one object, with a mistake that is taken back now and then."""
        self._spend(self._times.look_s, None)
        _, payload = self._shape(lease, name, target_HW)
        if self._rng.random() < self._behaviour.mistake_fraction:
            mistake = encode_mask(np.roll(target_HW, 7, axis=1) | target_HW)
            line.do("add", self._simulated_s, mask=f"{name}-wrong", rle=mistake, clicks=1)
            line.do("undo" if self._rng.random() < 0.5 else "remove", self._simulated_s, mask=f"{name}-wrong")
        line.do("add", self._simulated_s, mask=name, **payload)

    def _shape(
        self, lease: Mapping[str, Any], name: str, target_HW: np.ndarray, start_HW: np.ndarray | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Click, and draw with the brush where clicks do not do; return the mask and its payload without the name."""
        found_HW, payload = self._click_until_good(lease, name, target_HW, start_HW)
        if iou(found_HW, target_HW) >= self._behaviour.poor_iou:
            return found_HW, payload
        self._spend(self._times.brush_s, name)
        return target_HW, {"rle": encode_mask(target_HW), "clicks": payload["clicks"], "strokes": 3}

    def _click_until_good(
        self, lease: Mapping[str, Any], name: str, target_HW: np.ndarray, start_HW: np.ndarray | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Click until the mask is good enough; return it and its payload without the name."""
        clicks, answer = list[Click](), None
        mask_HW = np.zeros_like(target_HW) if start_HW is None else start_HW
        payload: dict[str, Any] = {}
        chosen = 0
        for number in range(self._behaviour.max_clicks):
            is_first = number == 0 and start_HW is None
            clicks.append(self._first_click(target_HW) if is_first else self._next_click(target_HW, mask_HW, clicks))
            self._spend(self._times.click_s, name)
            answer = self._ask(lease, clicks, answer, chosen, mask_HW if mask_HW.any() else None)
            masks = [decode_mask(each["rle"]) for each in answer["candidates"]]
            chosen = int(np.argmax([iou(each_HW, target_HW) for each_HW in masks]))
            if len(masks) > 1:
                self._spend(self._times.choose_s, name)
            mask_HW, payload = masks[chosen], _payload(answer, chosen, clicks)
            if iou(mask_HW, target_HW) >= self._behaviour.good_iou:
                break
        if not mask_HW.any():  # a mask of no pixel cannot be stored
            return mask_HW, {**payload, "rle": encode_mask(target_HW)}
        return mask_HW, payload

    def _first_click(self, target_HW: np.ndarray) -> Click:
        x, y = self._policy(target_HW, self._rng)
        return Click(x=x, y=y)

    def _next_click(self, target_HW: np.ndarray, mask_HW: np.ndarray, clicks: Sequence[Click]) -> Click:
        return next_click(target_HW, mask_HW, clicks, self._policy, self._rng)

    def _ask(
        self,
        lease: Mapping[str, Any],
        clicks: Sequence[Click],
        answer: Mapping[str, Any] | None,
        chosen: int,
        mask_HW: np.ndarray | None,
    ) -> Any:
        """Send the clicks to the server, and log the milliseconds from click to mask."""
        body: dict[str, Any] = {
            "clicks": [{"x": c.x, "y": c.y, "positive": c.positive} for c in clicks],
            "model": lease["model_id"],
        }
        if answer is not None:
            body["continued"] = {"prediction_id": answer["prediction_id"], "candidate": chosen}
        if mask_HW is not None:
            body["mask"] = encode_mask(mask_HW)
        found, ms = self._client.post_timed(f"/api/images/{lease['image_id']}/predict", body)
        self._client.log.write("click", ms=round(ms, 2), waited_ms=found["waited_ms"], decoded_ms=found["decoded_ms"])
        return found

    def _spend(self, mean_s: float, mask: str | None) -> None:
        """Let simulated seconds pass, and note the input that ends them."""
        seconds = self._times.draw(mean_s, self._rng)
        self._simulated_s += seconds
        self._inputs.append([round(self._simulated_s, 3), mask])
        self._stop.wait(seconds / self._behaviour.pace)


def largest_masks(truth: Truth, image_id: int, max_masks: int) -> list[Rle]:
    """Return the largest ground-truth masks of an image, which has ground truth."""
    masks = truth(image_id)
    assert masks is not None, f"image {image_id} has no ground truth"
    return sorted(masks, key=lambda mask: -rle.area(mask))[:max_masks]


def _payload(answer: Mapping[str, Any], chosen: int, clicks: Sequence[Click]) -> dict[str, Any]:
    """Make the payload of a mask that was clicked, without its name."""
    candidate = answer["candidates"][chosen]
    return {
        "rle": {key: candidate["rle"][key] for key in ("size", "counts")},
        "model_id": answer["model_id"],
        "image_sha256": answer["image_sha256"],
        "predicted_iou": candidate["predicted_iou"],
        "stability_score": candidate["stability_score"],
        "prompts": [{"x": click.x, "y": click.y, "positive": click.positive} for click in clicks],
        "clicks": len(clicks),
    }


def decode_mask(mask: Mapping[str, Any]) -> np.ndarray:
    """Decode a mask that the server sent; bool [H, W]."""
    height, width = mask["size"]
    return rle.decode(rle.from_coco(mask["counts"], height=height, width=width))


def encode_mask(mask_HW: np.ndarray) -> dict[str, Any]:
    """Encode a mask as the server expects it."""
    mask = rle.encode(mask_HW)
    return {"size": [mask.height, mask.width], "counts": rle.to_coco(mask)}
