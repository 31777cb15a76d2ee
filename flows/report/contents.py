"""Facts that several sections of the report need, read from the dataset's tables once. Sections query the rest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from engine.automatic.config import PRESETS
from stages.fully_automatic.stats import MaskStats
from storage.dataset import Dataset
from storage.protocol.plans import Plan
from storage.tables.sql import one_of

THRESHOLDS = {"predicted_iou": "predicted_iou_threshold", "stability": "stability_threshold"}
"""Name of the generator's threshold setting for each score."""


@dataclass(frozen=True, kw_only=True)
class MaskSet:
    """Masks that one model made with the same settings; several plans may have made them."""

    plan_ids: tuple[str, ...]
    homes: tuple[str, ...]
    """Homes of the plans: their names in the tables' column `plan`."""
    model_id: str
    """Id of the model; "" for masks that annotators made."""
    preset: str
    """Name of the preset nearest to the settings; "" where no generator made the masks."""
    changed_settings: Mapping[str, object]
    """Settings that differ from those of the nearest preset."""
    thresholds: Mapping[str, float]
    """Thresholds applied to each score (predicted_iou, stability); empty for masks that annotators made."""
    finished_at: datetime
    """Time of the last commit, UTC."""
    shards_planned: int
    shards_done: int
    images: int
    masks: int
    rejects: int
    seconds: float
    """Work of all workers together, in seconds."""

    @property
    def masks_per_image(self) -> float:
        """Mean number of masks of an image; 0 where there are no images."""
        return self.masks / self.images if self.images else 0.0

    @property
    def images_per_s(self) -> float:
        """Images per second of one worker; 0 where no time was recorded."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def plans_sql(self) -> str:
        """Homes of the plans as an SQL list, for use after `plan IN`."""
        return one_of(self.homes)


class ReportContents:
    """Contents of a dataset as of its newest fold, read with SQL.

    Values that several sections of the report need are read once and kept.
    """

    def __init__(self, dataset: Dataset, *, now: datetime | None = None) -> None:
        self.dataset = dataset
        self.written_at = now or datetime.now(UTC)
        """Time at which the report is written, UTC."""

    @property
    def uri(self) -> str:
        """Folder or s3:// prefix of the dataset."""
        return self.dataset.uri

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Query the dataset's tables with SQL and return the rows."""
        found: list[dict[str, Any]] = self.dataset.query(sql).to_pylist()
        return found

    @cached_property
    def images(self) -> int:
        """Number of images in the dataset."""
        return self._count("images")

    @cached_property
    def masks(self) -> int:
        """Number of masks in the dataset, of all models and settings."""
        return self._count("masks")

    @cached_property
    def rejects(self) -> int:
        """Number of rejected inputs in the dataset."""
        return self._count("rejects")

    @cached_property
    def mask_sets(self) -> list[MaskSet]:
        """Sets of masks by model and settings, ordered by the time of the last commit, the newest set at the end.

        A set without a finished shard is left out.
        """
        return _read_mask_sets(self)

    @property
    def newest(self) -> MaskSet | None:
        """Set of masks with the newest commit; None where no mask shard is finished.

        The report describes this set.
        """
        return self.mask_sets[-1] if self.mask_sets else None

    @cached_property
    def stats(self) -> MaskStats:
        """Statistics of the set `newest`: diagnostics of the mask generator, and the images without a mask."""
        if self.newest is None:
            return MaskStats()
        rows = self.rows(f"SELECT stats FROM shards WHERE plan IN {self.newest.plans_sql} AND attempt IS NOT NULL")
        return MaskStats.total(MaskStats.from_json(json.loads(row["stats"])) for row in rows)

    @cached_property
    def images_by_count(self) -> dict[int, int]:
        """Number of images by number of masks in the set `newest`; images without a mask are counted at 0."""
        if self.newest is None:
            return {}
        counted = f"SELECT image_id, count(*) AS number FROM masks WHERE plan IN {self.newest.plans_sql}"
        sql = f"SELECT number, count(*) AS images FROM ({counted} GROUP BY image_id) GROUP BY number ORDER BY number"
        found = {row["number"]: row["images"] for row in self.rows(sql)}
        bare = self.newest.images - sum(found.values()) - self._count_erased(self.newest)
        return ({0: bare} if bare else {}) | found

    def _count_erased(self, masks: MaskSet) -> int:
        """Count the erased images among those of a set, which its shards still count."""
        erasures = self.dataset.erasures()
        plans = [self.dataset.plan(plan_id) for plan_id in masks.plan_ids] if erasures.images else []
        shards = {shard.address: shard for plan in plans for shard in self.dataset.commits(plan)}
        touched = [shard for shard in shards.values() if erasures.touch(shard.address)]
        masked = {image_id for shard in touched for image_id in self.dataset.image_ids_in(shard)}
        return len(masked & erasures.images.keys()) + len(self.stats.without_masks.keys() & erasures.keys)

    def _count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) AS number FROM {table}")[0]["number"])


def _read_mask_sets(contents: ReportContents) -> list[MaskSet]:
    # Finished shards by the home of their plans
    done = {
        row["plan"]: row
        for row in contents.rows(
            """SELECT plan, max(model_id) AS model_id, count(*) AS shards, sum(images) AS images,
                      sum(rejects) AS rejects, sum(seconds) AS seconds, max(committed_at) AS finished_at
               FROM shards WHERE kind IN ('masks', 'amendments') AND attempt IS NOT NULL GROUP BY plan"""
        )
    }

    # Masks by plan; the shards' own numbers include withdrawn masks
    counted = {row["plan"]: row["n"] for row in contents.rows("SELECT plan, count(*) AS n FROM masks GROUP BY plan")}
    for home, row in done.items():
        row["masks"] = counted.get(home, 0)

    # Plans with equal settings together
    groups: dict[str, list[Plan]] = {}
    for plan in contents.dataset.plans():
        if plan.kind.table == "masks" and not plan.redoes and plan.home in done:
            groups.setdefault(plan.settings_hash, []).append(plan)
    sets = [_mask_set(plans, done) for plans in groups.values()]
    return sorted(sets, key=lambda each: (each.finished_at, each.plan_ids))


def _mask_set(plans: Sequence[Plan], done: Mapping[str, Mapping[str, Any]]) -> MaskSet:
    homes = sorted({plan.home for plan in plans})
    rows = [done[home] for home in homes]
    generate = plans[0].settings.get("generate")
    generate = generate if isinstance(generate, Mapping) else {}
    preset, changed = _name_preset(generate)
    return MaskSet(
        plan_ids=tuple(plan.plan_id for plan in plans),
        homes=tuple(homes),
        model_id=rows[0]["model_id"],
        preset=preset,
        changed_settings=changed,
        thresholds={name: float(generate[key]) for name, key in THRESHOLDS.items() if generate.get(key) is not None},
        finished_at=max(row["finished_at"] for row in rows),
        shards_planned=len({plan.address(shard) for plan in plans for shard in plan.shards}),
        shards_done=sum(row["shards"] for row in rows),
        images=sum(row["images"] for row in rows),
        masks=sum(row["masks"] for row in rows),
        rejects=sum(row["rejects"] for row in rows),
        seconds=sum(row["seconds"] for row in rows),
    )


def _name_preset(generate: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """Find the nearest preset, and the settings that differ from it; ("", {}) where no generator made the masks."""
    if not generate:
        return "", {}
    settings = {key: value for key, value in generate.items() if key not in THRESHOLDS.values()}
    differences = {
        name: {key: value for key, value in settings.items() if getattr(preset, key, None) != value}
        for name, preset in PRESETS.items()
    }
    nearest = min(differences, key=lambda name: len(differences[name]))
    return nearest, differences[nearest]
