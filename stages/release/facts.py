"""What a dataset's tables know of how a snapshot came about, in numbers: times, people, and their work. No names."""

from dataclasses import asdict, dataclass
from typing import Any

from storage.dataset import Dataset
from storage.tables.snapshots import Snapshot


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Numbers about the making of all images and masks of a snapshot, those that do not leave included."""

    images_from: str
    """Day of the first image shard, UTC, as YYYY-MM-DD; empty where there is none."""
    images_to: str
    masks_from: str
    """Day of the first shard of masks, UTC; empty where there is none."""
    masks_to: str
    annotators: int
    """Number of annotators whose masks are in the snapshot."""
    rounds: int
    """Number of annotation rounds whose masks are in the snapshot."""
    simulated_masks: int
    """Number of masks in the snapshot that simulated annotators made, accepted or edited."""
    people_masks: int
    """Number of masks in the snapshot that people made, accepted or edited in rounds."""
    mean_active_s: float | None
    """Mean seconds of work of people on a mask; None without any."""
    agreed_tasks: int
    """Number of tasks, each an image of a round, that several annotators answered."""
    agreement: float | None
    """Mean fraction of an image's masks that the other annotators made, too, at an IoU of at least 0.5; None without
    such tasks.
    """

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return asdict(self)


def read_facts(dataset: Dataset, snapshot: Snapshot) -> Facts:
    """Read the facts of a snapshot from its tables."""
    has_annotations = "annotations" in snapshot.versions
    by_hand = _masks_by_hand(dataset, snapshot.snapshot_id) if has_annotations else {}
    mean_active_s = _mean_active_s(dataset, snapshot.snapshot_id) if has_annotations else None
    agreed_tasks, agreement = _agreement(dataset, snapshot.snapshot_id) if has_annotations else (0, None)
    images_from, images_to = _days(dataset, snapshot.snapshot_id, "'images'")
    masks_from, masks_to = _days(dataset, snapshot.snapshot_id, "'masks', 'amendments'")
    sql = (
        "SELECT count(DISTINCT annotator_id) AS annotators, count(DISTINCT round_id) AS rounds "
        "FROM masks WHERE annotator_id <> ''"
    )
    (people,) = dataset.query(sql, snapshot.snapshot_id).to_pylist()
    return Facts(
        images_from=images_from,
        images_to=images_to,
        masks_from=masks_from,
        masks_to=masks_to,
        annotators=people["annotators"],
        rounds=people["rounds"],
        simulated_masks=by_hand.get(True, 0),
        people_masks=by_hand.get(False, 0),
        mean_active_s=mean_active_s,
        agreed_tasks=agreed_tasks,
        agreement=agreement,
    )


def _days(dataset: Dataset, snapshot: str, kinds: str) -> tuple[str, str]:
    sql = f"SELECT min(committed_at) AS first, max(committed_at) AS last FROM shards WHERE kind IN ({kinds})"
    (row,) = dataset.query(sql, snapshot).to_pylist()
    return ("", "") if row["first"] is None else (f"{row['first']:%Y-%m-%d}", f"{row['last']:%Y-%m-%d}")


def _masks_by_hand(dataset: Dataset, snapshot: str) -> dict[bool, int]:
    """Count the masks of the snapshot that are the work of simulated annotators (True) and of people (False)."""
    sql = (
        "SELECT simulated, count(*) AS masks FROM (SELECT m.image_id, m.mask_id, bool_or(a.simulated) AS simulated "
        "FROM masks m JOIN annotations a ON a.image_id = m.image_id AND a.mask_id = m.mask_id "
        "WHERE m.annotator_id <> '' AND a.in_masks GROUP BY m.image_id, m.mask_id) GROUP BY simulated"
    )
    return {row["simulated"]: row["masks"] for row in dataset.query(sql, snapshot).to_pylist()}


def _mean_active_s(dataset: Dataset, snapshot: str) -> float | None:
    """Return the mean seconds of work of people on a mask.

    Whole numbers are summed, because a sum of floats depends on its order, and a release on nothing but its snapshot.
    """
    sql = (
        "SELECT count(*) AS masks, sum(CAST(round(active_s * 1000) AS BIGINT)) AS active_ms "
        "FROM annotations WHERE in_masks AND NOT simulated"
    )
    (row,) = dataset.query(sql, snapshot).to_pylist()
    return round(row["active_ms"] / row["masks"] / 1000, 2) if row["masks"] else None


def _agreement(dataset: Dataset, snapshot: str) -> tuple[int, float | None]:
    """Return the number of tasks with several answers, and the mean agreement about them."""
    sql = (
        "SELECT count(*) AS tasks, sum(CAST(round(agreed * 1000000) AS BIGINT)) AS agreed FROM (SELECT "
        "avg(agreed_fraction) AS agreed FROM annotations WHERE agreed_fraction IS NOT NULL GROUP BY stage, task_id)"
    )
    (row,) = dataset.query(sql, snapshot).to_pylist()
    tasks: int = row["tasks"]
    return tasks, round(row["agreed"] / tasks / 1e6, 4) if tasks else None
