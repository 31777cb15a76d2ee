"""What the report says, read from a dataset's tables: numbers by SQL, a dozen photographs by range reads.

Nothing here grows with the dataset but the diagnostics of its shards: histograms are counted by the query engine.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from engine.automatic.config import PRESETS
from engine.automatic.diagnostics import Diagnostics
from stages.fully_automatic.stats import MaskStats
from storage.dataset import Dataset
from storage.errors import Corrupt
from storage.formats.sa1b import parse_sa1b
from storage.protocol.plans import Plan
from storage.records import MaskRecord

NUM_PICTURES = 12
NUM_REJECT_ROWS = 40
SIZE_BINS = 1000
CENTRE_BINS = 48
SCORE_BINS = 100
THRESHOLDS = {"predicted_iou": "predicted_iou_threshold", "stability": "stability_threshold"}
"""Score -> its setting of the generator."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """All plans of masks with the same model and settings. `seconds` adds up the work of all shards, whoever did it."""

    plan_ids: tuple[str, ...]
    model_id: str
    preset: str
    changed_settings: Mapping[str, object]
    thresholds: Mapping[str, float]  # predicted_iou, stability: as the run applied them; empty for people's masks
    finished_at: datetime
    shards_planned: int
    shards_done: int
    images: int
    masks: int
    rejects: int
    seconds: float

    @property
    def masks_per_image(self) -> float:
        """Mean number of masks of an image; 0 without images."""
        return self.masks / self.images if self.images else 0.0

    @property
    def images_per_s(self) -> float:
        """Of one worker; 0 where no time was recorded."""
        return self.images / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One photograph to show, with its masks in the run; `diagnostics` where the run recorded them for this image."""

    source: str
    height: int
    width: int
    data: bytes
    masks: tuple[MaskRecord, ...]
    diagnostics: Diagnostics | None


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """Counts over the run's masks; the scores' add up to the masks that have one."""

    relative_size_B: np.ndarray  # sqrt(mask area / image area), SIZE_BINS equal bins over [0, 1]
    iou_sum_B: np.ndarray  # in the same bins, predicted IoU summed over the masks that have one; float64
    scored_B: np.ndarray  # and their number
    centre_HW: np.ndarray  # box centres, CENTRE_BINS x CENTRE_BINS over the picture, from its top left
    predicted_iou_B: np.ndarray  # SCORE_BINS equal bins over [0, 1]
    stability_B: np.ndarray
    images_by_count: dict[int, int]  # number of masks -> images of the run with as many, 0 included

    @property
    def median_relative_size(self) -> float:
        """To the width of a bin."""
        cumulated = np.cumsum(self.relative_size_B)
        return float((np.searchsorted(cumulated, cumulated[-1] / 2) + 0.5) / self.relative_size_B.size)


@dataclass(frozen=True, kw_only=True)
class RejectGroup:
    """Rejects of one stage and reason, and how many there are."""

    stage: str
    reason: str
    count: int


@dataclass(frozen=True, kw_only=True)
class RejectRow:
    """One reject as the report lists it."""

    stage: str
    reason: str
    source: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything on the page. The report is about `run`, the masks of the model and settings that were last at work."""

    uri: str
    written_at: datetime
    images: int
    masks: int
    run: RunFacts | None
    earlier_runs: tuple[RunFacts, ...]
    pictures: tuple[Picture, ...]
    histograms: Histograms | None
    diagnostics: Diagnostics | None
    reject_groups: tuple[RejectGroup, ...]
    reject_rows: tuple[RejectRow, ...]

    @property
    def rejects(self) -> int:
        """Number of rejects, all groups together."""
        return sum(group.count for group in self.reject_groups)


def collect(dataset: Dataset, *, now: datetime | None = None) -> ReportData:
    """The report's data, as of the newest fold. Raises Corrupt where a photograph is not what its row says."""
    runs = _read_runs(dataset)
    run = runs[-1] if runs else None
    stats = _read_stats(dataset, run) if run else MaskStats()
    return ReportData(
        uri=dataset.uri,
        written_at=now or datetime.now(UTC),
        images=_count(dataset, "images"),
        masks=_count(dataset, "masks"),
        run=run,
        earlier_runs=tuple(runs[:-1]),
        pictures=_read_pictures(dataset, run, stats.without_masks),
        histograms=_read_histograms(dataset, run) if run and run.masks else None,
        diagnostics=stats.diagnostics,
        reject_groups=_read_reject_groups(dataset),
        reject_rows=_read_reject_rows(dataset),
    )


def _read_runs(dataset: Dataset) -> list[RunFacts]:
    """By model and settings; the one that committed last at the end. Plans without a finished shard are left out."""
    done = {
        row["plan"]: row
        for row in _rows(
            dataset,
            """SELECT plan, max(model_id) AS model_id, count(*) AS shards, sum(images) AS images,
                      sum(rejects) AS rejects, sum(seconds) AS seconds, max(committed_at) AS finished_at
               FROM shards WHERE kind = 'masks' AND attempt IS NOT NULL GROUP BY plan""",
        )
    }
    counted = {row["plan"]: row["n"] for row in _rows(dataset, "SELECT plan, count(*) AS n FROM masks GROUP BY plan")}
    for plan_id, row in done.items():
        row["masks"] = counted.get(plan_id, 0)  # the shards' own numbers include masks that were withdrawn
    groups: dict[str, list[Plan]] = {}
    for plan in dataset.plans():
        if plan.kind == "masks" and plan.plan_id in done:
            groups.setdefault(plan.settings_hash, []).append(plan)
    runs = [_run_facts(plans, [done[plan.plan_id] for plan in plans]) for plans in groups.values()]
    return sorted(runs, key=lambda run: (run.finished_at, run.plan_ids))


def _run_facts(plans: Sequence[Plan], rows: Sequence[Mapping[str, Any]]) -> RunFacts:
    generate = plans[0].settings.get("generate")
    generate = generate if isinstance(generate, Mapping) else {}
    preset, changed = _name_preset(generate)
    return RunFacts(
        plan_ids=tuple(plan.plan_id for plan in plans),
        model_id=rows[0]["model_id"],
        preset=preset,
        changed_settings=changed,
        thresholds={name: float(generate[key]) for name, key in THRESHOLDS.items() if generate.get(key) is not None},
        finished_at=max(row["finished_at"] for row in rows),
        shards_planned=sum(len(plan.shards) for plan in plans),
        shards_done=sum(row["shards"] for row in rows),
        images=sum(row["images"] for row in rows),
        masks=sum(row["masks"] for row in rows),
        rejects=sum(row["rejects"] for row in rows),
        seconds=sum(row["seconds"] for row in rows),
    )


def _name_preset(generate: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """The preset these settings are nearest to, and what else differs from it; "" for a run without a generator."""
    if not generate:
        return "", {}
    settings = {key: value for key, value in generate.items() if key not in THRESHOLDS.values()}
    differences = {
        name: {key: value for key, value in settings.items() if getattr(preset, key, None) != value}
        for name, preset in PRESETS.items()
    }
    nearest = min(differences, key=lambda name: len(differences[name]))
    return nearest, differences[nearest]


def _read_stats(dataset: Dataset, run: RunFacts) -> MaskStats:
    """Add the statistics of all shards of a run."""
    rows = _rows(dataset, f"SELECT stats FROM shards WHERE plan IN {_plans(run)} AND attempt IS NOT NULL")
    return MaskStats.total(MaskStats.from_json(json.loads(row["stats"])) for row in rows)


def _read_histograms(dataset: Dataset, run: RunFacts) -> Histograms:
    mine = f"m.plan IN {_plans(run)}"
    joined = f"FROM masks m JOIN images i ON m.image_id = i.image_id WHERE {mine}"
    size_bin = _bin("sqrt(m.area_px / (CAST(i.height AS DOUBLE) * i.width))", SIZE_BINS)
    column = _bin("(m.x0 + m.x1) / (2.0 * i.width)", CENTRE_BINS)
    row = _bin("(m.y0 + m.y1) / (2.0 * i.height)", CENTRE_BINS)
    iou = "CAST(m.predicted_iou AS DOUBLE)"
    sums = ("count(*)", f"sum({iou})", f"count({iou})")
    sizes_3B = _histogram(dataset, size_bin, joined, SIZE_BINS, sums)
    centres_1B = _histogram(dataset, f"{row} * {CENTRE_BINS} + {column}", joined, CENTRE_BINS**2)
    return Histograms(
        relative_size_B=sizes_3B[0].astype(np.int64),
        iou_sum_B=sizes_3B[1],
        scored_B=sizes_3B[2].astype(np.int64),
        centre_HW=centres_1B[0].astype(np.int64).reshape(CENTRE_BINS, CENTRE_BINS),
        predicted_iou_B=_score_histogram(dataset, "predicted_iou", mine),
        stability_B=_score_histogram(dataset, "stability_score", mine),
        images_by_count=_read_images_by_count(dataset, run),
    )


def _score_histogram(dataset: Dataset, column: str, mine: str) -> np.ndarray:
    # The model's estimate is not bound to [0, 1]; what lies outside is counted in the outermost bins.
    source = f"FROM masks m WHERE {mine} AND m.{column} IS NOT NULL"
    bin_sql = _bin(f"CAST(m.{column} AS DOUBLE)", SCORE_BINS)
    counts: np.ndarray = _histogram(dataset, bin_sql, source, SCORE_BINS)[0].astype(np.int64)
    return counts


def _bin(value: str, bins: int) -> str:
    # 1e-5: a float32 score of 0.7 is 0.69999999, and belongs to the bin that starts there.
    return f"CAST(greatest(0, least({bins - 1}, floor({value} * {bins} + 1e-5))) AS BIGINT)"


def _histogram(
    dataset: Dataset, bin_sql: str, source_sql: str, bins: int, values: Sequence[str] = ("count(*)",)
) -> np.ndarray:
    """What each of `values` comes to in each bin: float64 [V, B]."""
    named = ", ".join(f"{value} AS value_{place}" for place, value in enumerate(values))
    out_VB = np.zeros((len(values), bins))
    for row in _rows(dataset, f"SELECT {bin_sql} AS bin, {named} {source_sql} GROUP BY bin"):
        out_VB[:, row["bin"]] = [row[f"value_{place}"] or 0 for place in range(len(values))]
    return out_VB


def _read_images_by_count(dataset: Dataset, run: RunFacts) -> dict[int, int]:
    with_masks = f"SELECT image_id, count(*) AS number FROM masks WHERE plan IN {_plans(run)} GROUP BY image_id"
    rows = _rows(dataset, f"SELECT number, count(*) AS images FROM ({with_masks}) GROUP BY number ORDER BY number")
    found = {row["number"]: row["images"] for row in rows}
    bare = run.images - sum(found.values())
    return ({0: bare} if bare else {}) | found


def _read_pictures(
    dataset: Dataset, run: RunFacts | None, without_masks: Mapping[str, Diagnostics]
) -> tuple[Picture, ...]:
    """Photographs evenly spaced in the order of their number of masks, fewest and most included; most masks first."""
    if run is None:
        rows = _rows_at_even_places(dataset, "SELECT image_id FROM images", "image_id", NUM_PICTURES)
        return tuple(_picture(dataset, row, [], None) for row in rows)
    bare_keys = sorted(without_masks)
    bare = min(len(bare_keys), max(1, round(NUM_PICTURES * len(bare_keys) / max(1, run.images)))) if bare_keys else 0
    counted = f"SELECT image_id, count(*) AS number FROM masks WHERE plan IN {_plans(run)} GROUP BY image_id"
    rows = _rows_at_even_places(dataset, counted, "number, image_id", NUM_PICTURES - bare)
    if bare:
        chosen = ", ".join(_text(bare_keys[place]) for place in _even_places(len(bare_keys), bare))
        rows += _rows(dataset, f"SELECT * FROM images WHERE key IN ({chosen}) ORDER BY key")
    masks = _read_masks(dataset, run, [row["image_id"] for row in rows])
    return tuple(_picture(dataset, row, masks.get(row["image_id"], []), without_masks.get(row["key"])) for row in rows)


def _rows_at_even_places(dataset: Dataset, images_sql: str, order: str, number: int) -> list[dict[str, Any]]:
    """Rows of `images` at evenly spaced places of the images that `images_sql` selects, the last place first."""
    total = _rows(dataset, f"SELECT count(*) AS number FROM ({images_sql})")[0]["number"]
    places = _even_places(total, number)
    if not places:
        return []
    ranked = f"SELECT image_id, row_number() OVER (ORDER BY {order}) - 1 AS place FROM ({images_sql})"
    wanted = ", ".join(str(place) for place in places)
    return _rows(
        dataset,
        f"""SELECT i.*, r.place FROM ({ranked}) r JOIN images i ON i.image_id = r.image_id
            WHERE r.place IN ({wanted}) ORDER BY r.place DESC""",
    )


def _even_places(total: int, number: int) -> list[int]:
    """At most `number` of 0..total-1, first and last included."""
    return sorted({round(place) for place in np.linspace(0, total - 1, min(total, number))})


def _picture(
    dataset: Dataset, row: Mapping[str, Any], masks: Sequence[MaskRecord], diagnostics: Diagnostics | None
) -> Picture:
    return Picture(
        source=row["source"],
        height=row["height"],
        width=row["width"],
        data=_read_photo(dataset, row),
        masks=tuple(masks),
        diagnostics=diagnostics,
    )


def _read_photo(dataset: Dataset, row: Mapping[str, Any]) -> bytes:
    data = dataset.store.get_range(row["part"], row["member_offset"], row["member_nbytes"])
    if hashlib.sha256(data).hexdigest() != row["stored_sha256"]:
        raise Corrupt(f"{dataset.uri}/{row['part']}: image {row['key']} is damaged; run `gigamask verify`")
    return data


def _read_masks(dataset: Dataset, run: RunFacts, image_ids: Sequence[int]) -> dict[int, list[MaskRecord]]:
    """The masks that the tables name, by image; one range read an image."""
    if not image_ids:
        return {}
    ids = ", ".join(str(image_id) for image_id in image_ids)
    columns = "image_id, mask_id, part, member_offset, member_nbytes"
    found: dict[tuple[str, int, int], set[int]] = {}
    for row in _rows(dataset, f"SELECT {columns} FROM masks WHERE plan IN {_plans(run)} AND image_id IN ({ids})"):
        found.setdefault((row["part"], row["member_offset"], row["member_nbytes"]), set()).add(row["mask_id"])
    masks: dict[int, list[MaskRecord]] = {}
    for (part, offset, nbytes), mask_ids in found.items():
        image, annotated = parse_sa1b(json.loads(dataset.store.get_range(part, offset, nbytes)))
        masks.setdefault(image.image_id, []).extend(mask for mask in annotated if mask.mask_id in mask_ids)
    return masks


def _read_reject_groups(dataset: Dataset) -> tuple[RejectGroup, ...]:
    counts = "SELECT stage, reason, count(*) AS count FROM rejects GROUP BY stage, reason"
    sql = f"{counts} ORDER BY count DESC, stage, reason"
    return tuple(RejectGroup(**row) for row in _rows(dataset, sql))


def _read_reject_rows(dataset: Dataset) -> tuple[RejectRow, ...]:
    columns = "stage, reason, source, detail"
    sql = f"SELECT {columns} FROM rejects ORDER BY {columns} LIMIT {NUM_REJECT_ROWS}"
    return tuple(RejectRow(**row) for row in _rows(dataset, sql))


def _count(dataset: Dataset, table: str) -> int:
    return int(_rows(dataset, f"SELECT count(*) AS number FROM {table}")[0]["number"])


def _rows(dataset: Dataset, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dataset.query(sql).to_pylist()
    return rows


def _plans(run: RunFacts) -> str:
    """Its plans as an SQL list."""
    return f"({', '.join(_text(plan_id) for plan_id in run.plan_ids)})"


def _text(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"
