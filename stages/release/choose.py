"""Choice of what leaves: images of a snapshot that have a licence and masks, without what was taken back since."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pyarrow as pa

from stages.ingest.normalise import JPEG_MAX_SIDE
from stages.release.config import ReleaseConfig
from stages.release.pictures import encoder
from stages.release.privacy import Deidentification, read_deidentification
from storage.dataset import Dataset
from storage.protocol.inputs import PlanKind
from storage.protocol.plans import Plan
from storage.tables.snapshots import Snapshot, read_snapshot
from storage.tables.withdrawals import mask_pairs, withdrawn_by

FORMAT = 4
"""Number of the form of a release; another number means other bytes for the same choice."""

NO_MASKS, NO_LICENSE = "no masks", "no licence"
ERASED, TOO_LONG = "erased since the snapshot", "a side too long for JPEG"
"""Reasons why an image does not leave."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Images and masks of a snapshot that leave, in their order, and what stays."""

    snapshot: Snapshot
    places: np.ndarray
    """Numbers of the images in `SnapshotImages`, in the order in which they leave; int64 [N]."""
    image_ids: np.ndarray
    """Their ids in the dataset; int64 [N]. They are part of a photo's hash and do not leave."""
    mask_counts: np.ndarray
    """Number of masks of each image; int64 [N]."""
    withdrawn: frozenset[tuple[int, int]]
    """Masks of the snapshot, as (image_id, mask_id), that were withdrawn since it was taken and do not leave."""
    left_out: Mapping[str, int]
    """Number of images of the snapshot that do not leave, by reason."""
    masks_left_out: Mapping[str, int]
    """Number of masks of the snapshot that do not leave, by reason."""
    deidentification: Deidentification
    """What was done to faces and licence plates in the images that leave."""

    def __len__(self) -> int:
        """Return the number of images that leave."""
        return len(self.places)

    @property
    def masks(self) -> int:
        """Number of masks that leave."""
        return int(self.mask_counts.sum())

    def release_id(self, config: ReleaseConfig) -> str:
        """Derive the id of the release: equal ids mean equal bytes."""
        content = hashlib.sha256()
        for numbers in (self.places, self.image_ids, self.mask_counts):
            content.update(numbers.astype("<i8").tobytes())
        content.update(repr(sorted(self.withdrawn)).encode())
        about = {
            "format": FORMAT,
            "snapshot": [self.snapshot.snapshot_id, self.snapshot.records_sha256],
            "settings": config.settings(),
            "made_with": [f"gigamask {version('gigamask')}", encoder(), f"pyarrow {pa.__version__}"],
            "content": content.hexdigest(),
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def choose(dataset: Dataset, snapshot: str, config: ReleaseConfig, *, any_side: bool = False) -> Choice:
    """Choose the images and masks that leave; with `any_side` also images that are too long for JPEG.

    Masks that were withdrawn since the snapshot was taken do not leave, nor do images that were erased. Masks that
    annotators replaced since then do: the snapshot has them, also those of an annotator who was withdrawn afterwards.

    Raises:
        ValueError: No image may leave, or images that would leave were not searched for faces and licence plates.
        NotFound: There is no such snapshot.
    """
    # Images of the snapshot, in the order of SnapshotImages
    sql = (
        f"SELECT image_id, trim(license) = '' AS unlicensed, greatest(height, width) > {JPEG_MAX_SIDE} AS too_long "
        "FROM images ORDER BY plan, shard, image_id"
    )
    rows = dataset.query(sql, snapshot)
    image_ids = rows.column("image_id").to_numpy().astype(np.int64)
    unlicensed, too_long = (
        rows.column(name).to_numpy(zero_copy_only=False).astype(bool) for name in ("unlicensed", "too_long")
    )

    # Their masks, without those that were taken back since
    withdrawn = _withdrawn_since(dataset, snapshot)
    masks, elsewhere = _count_masks(dataset, snapshot, image_ids)
    gone = np.array([image_id for image_id, _ in withdrawn], np.int64)
    kept_masks = masks - _by_image(gone, np.ones(len(gone), np.int64), image_ids)[0]

    # What stays, each image for one reason
    erased = np.isin(image_ids, np.array(sorted(dataset.erasures().images), np.int64))
    reasons = [(ERASED, erased), (NO_MASKS, kept_masks == 0)]
    if not any_side:
        reasons.append((TOO_LONG, too_long))
    if not config.allow_unlicensed:
        reasons.append((NO_LICENSE, unlicensed))
    leaves = np.ones(len(image_ids), bool)
    left_out, masks_left_out = dict[str, int](), dict[str, int]()
    for reason, stays in reasons:
        stays = stays & leaves
        leaves &= ~stays
        left_out[reason] = int(stays.sum())
        masks_left_out[reason] = int(kept_masks[stays].sum())
    del masks_left_out[NO_MASKS]
    masks_left_out |= {"withdrawn since the snapshot": len(withdrawn), "without an image in the snapshot": elsewhere}
    _check_any(leaves, left_out, snapshot)
    deidentification = read_deidentification(dataset, snapshot, image_ids[leaves])
    deidentification.check(config)

    return Choice(
        snapshot=read_snapshot(dataset.store, snapshot),
        places=np.flatnonzero(leaves).astype(np.int64),
        image_ids=image_ids[leaves],
        mask_counts=kept_masks[leaves],
        withdrawn=frozenset(withdrawn),
        left_out=left_out,
        masks_left_out=masks_left_out,
        deidentification=deidentification,
    )


def _check_any(leaves: np.ndarray, left_out: Mapping[str, int], snapshot: str) -> None:
    if leaves.any():
        return
    reasons = ", ".join(f"{images} {reason}" for reason, images in left_out.items() if images) or "it has none"
    advice = "; give --allow-unlicensed to release them all the same" if left_out.get(NO_LICENSE) else ""
    raise ValueError(f"snapshot {snapshot}: no image may leave ({reasons}){advice}")


def _count_masks(dataset: Dataset, snapshot: str, image_ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Count the masks of each image, and those of images that the snapshot does not hold."""
    rows = dataset.query("SELECT image_id, count(*) AS masks FROM masks GROUP BY image_id", snapshot)
    return _by_image(rows.column("image_id").to_numpy(), rows.column("masks").to_numpy(), image_ids)


def _by_image(found: np.ndarray, counts: np.ndarray, image_ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Sum counts over equal image ids; return the sum of each image, and that of all ids that are no image's."""
    order = np.argsort(image_ids)
    places = np.minimum(np.searchsorted(image_ids, found, sorter=order), max(0, len(image_ids) - 1))
    is_known = np.isin(found, image_ids)
    sums = np.zeros(len(image_ids), np.int64)
    np.add.at(sums, order[places[is_known]], counts[is_known])
    return sums, int(counts[~is_known].sum())


def _withdrawn_since(dataset: Dataset, snapshot: str) -> set[tuple[int, int]]:
    """Find the masks of a snapshot that were withdrawn since it was taken."""
    commits = [commit for plan in dataset.plans() if _takes_back(plan) for commit in dataset.commits(plan)]
    gone = mask_pairs(withdrawn_by(dataset.store, commits))
    if not gone:
        return set()
    mask_ids = np.array(sorted({mask_id for _, mask_id in gone}), np.int64)
    found = set[tuple[int, int]]()
    for batch in dataset.masks(columns=["image_id", "mask_id"], snapshot=snapshot):
        own = batch.filter(pa.array(np.isin(batch.column("mask_id").to_numpy(), mask_ids)))
        found |= mask_pairs(own) & gone
    return found


def _takes_back(plan: Plan) -> bool:
    """Tell whether a plan withdraws masks for good: by `withdraw`, or with the work of an annotator.

    Other amendments replace masks by better ones.
    """
    return plan.kind is PlanKind.WITHDRAWALS or "withdrawn_annotator" in plan.settings
