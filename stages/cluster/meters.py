"""Metrics of a worker's running counts in Ray."""

from ray.util.metrics import Counter

from stages.fully_automatic.outcomes import MaskedImage, ShardResult
from storage.records import Reject


class RayMeters:
    """Ray metrics of what a worker has done: `ray_gigamask_images_total` and others, by plan, node and process.

    Where `ray[default]` is installed, Ray's agent on each node exports the metrics to Prometheus. Elsewhere nothing
    reads the metrics.
    """

    def __init__(self) -> None:
        self._images = Counter("gigamask_images", "images done, masked or rejected", ("plan",))
        self._masks = Counter("gigamask_masks", "masks made", ("plan",))
        self._rejects = Counter("gigamask_rejects", "images that could not be masked", ("plan",))
        self._shards = Counter("gigamask_shards", "shards committed", ("plan",))
        self._seconds = Counter("gigamask_seconds", "seconds of work: read, wait, mask, write", ("plan", "part"))

    def count_image(self, plan_id: str, outcome: MaskedImage | Reject) -> None:
        """Count an image that was masked or rejected."""
        plan = {"plan": plan_id}
        self._images.inc(1, plan)
        if isinstance(outcome, Reject):
            self._rejects.inc(1, plan)
        elif outcome.masks:
            self._masks.inc(len(outcome.masks), plan)

    def count_shard(self, result: ShardResult) -> None:
        """Count a shard that this worker committed, and the seconds that each part of the work took."""
        self._shards.inc(1, {"plan": result.plan_id})
        for part, seconds in result.seconds_by_part.items():
            if seconds > 0:  # Ray refuses to count nothing
                self._seconds.inc(seconds, {"plan": result.plan_id, "part": part})
