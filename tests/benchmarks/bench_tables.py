"""Large tables: fold rate, bytes per row, aggregates, the masks of one image, and memory.

    python tests/benchmarks/bench_tables.py [--rows 2000000] [--folder FOLDER] [--keep]

Rows are synthetic, all else is real: every shard is an attempt with a commit record (its tar is a placeholder with the
right counts, which no table reads), `Dataset.fold` adds the records to the Delta tables, and `Dataset.query` reads
them. Shards have the size of a real run's: 256 images, about 100 masks each. Filling, folding and querying run in
separate processes, so that each has its own peak memory. Times are wall seconds on all cores, medians of
all repetitions.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from json_lines import print_line

from storage.dataset import Dataset
from storage.protocol.commits import Commit, begin_attempt
from storage.protocol.inputs import ImageRange
from storage.protocol.plans import Plan, PlannedShard
from storage.tables import contents
from storage.tables.columns import IMAGES, MASKS
from tests.image_records import photo_key

IMAGES_A_SHARD, MASKS_AN_IMAGE = 256, 100
HEIGHT, WIDTH = 1500, 2250
MODEL_ID = "seed-0123456789ab"
ASKED_TIMES = 3
IMAGES_ASKED = 20
AGGREGATES = {
    "aggregate over all rows": (
        "SELECT stage, model_id, count(*) AS masks, avg(area_px) AS area_px, avg(predicted_iou) AS predicted_iou, "
        "min(stability_score) AS least_stable FROM masks GROUP BY stage, model_id"
    ),
    "filtered aggregate": (
        "SELECT count(*) AS masks, avg(area_px) AS area_px FROM masks "
        "WHERE stability_score < 0.96 AND predicted_iou > 0.9"
    ),
    "histogram of sizes": (
        "SELECT floor(log10(area_px)) AS decade, count(*) AS masks FROM masks WHERE area_px > 0 GROUP BY 1 ORDER BY 1"
    ),
    "masks of each image, distribution": (
        "SELECT min(masks) AS least, avg(masks) AS mean, max(masks) AS most "
        "FROM (SELECT image_id, count(*) AS masks FROM masks GROUP BY image_id)"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000, help="approximate number of mask rows")
    parser.add_argument("--folder", type=Path, help="folder for the dataset; default: the system's temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep the dataset and print its folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-tables-", dir=arguments.folder))
    try:
        measure(folder / "dataset", max(1, round(arguments.rows / IMAGES_A_SHARD / MASKS_AN_IMAGE)))
    finally:
        if arguments.keep:
            print(folder)
        else:
            shutil.rmtree(folder)


def measure(uri: Path, shards: int) -> None:
    """Fill, fold and query the tables, and print a line for each figure."""
    filled, _ = alone(fill, uri, shards)
    facts = {"rows": int(filled["rows"]), "shards": shards}
    print_line("tables", "committing shards (rows synthesised)", filled["rows"] / filled["s"], "rows/s", **facts)
    folded, peak_mib = alone(fold, uri)
    print_line("tables", "fold", facts["rows"] / folded["s"], "rows/s", **facts)
    print_line("tables", "fold, peak memory", peak_mib, "MiB", **facts)
    nbytes = sum(file.stat().st_size for file in (uri / "tables" / "masks").rglob("*.parquet"))
    print_line("tables", "size of masks", nbytes / facts["rows"], "bytes/row", **facts)
    seconds_by_query, peak_mib = alone(time_queries, uri)
    for metric, seconds in seconds_by_query.items():
        print_line("tables", metric, seconds, "s", **facts)
    print_line("tables", "queries, peak memory", peak_mib, "MiB", **facts)


def alone(work: Callable[..., dict[str, float]], *arguments: object) -> tuple[dict[str, float], float]:
    """Run `work` in a new process; returns its result and the process's peak of resident memory in MiB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        answer = process.submit(work, *arguments).result()
        return answer, process.submit(resource.getrusage, resource.RUSAGE_SELF).result().ru_maxrss / 1024


def fill(uri: Path, shards: int) -> dict[str, float]:
    """Commit `shards` image shards and their mask shards, without flushing them to disk."""
    os.fsync = lambda fd: None
    dataset = Dataset.create(uri)
    rng = np.random.default_rng(0)
    homes = [PlannedShard(name=f"{number:06d}", inputs=(photo_key(f"photos-{number}"),)) for number in range(shards)]
    images = dataset.new_plan("images", homes, {"shortest_side_px": HEIGHT})
    made = [
        PlannedShard(name=home.name, inputs=(ImageRange(shard=images.address(home), start=0, stop=IMAGES_A_SHARD),))
        for home in images.shards
    ]
    masks = dataset.new_plan("masks", made, {"model_id": MODEL_ID})
    rows, began = 0, time.perf_counter()
    for home, shard in zip(images.shards, masks.shards, strict=True):
        image_ids = np.sort(rng.integers(2**63, size=IMAGES_A_SHARD, dtype=np.int64))
        commit_rows(dataset, images, home, image_rows(image_ids, images, home), masks=0)
        shard_rows = mask_rows(image_ids, masks, shard, rng)
        commit_rows(dataset, masks, shard, shard_rows, masks=shard_rows.num_rows)
        rows += shard_rows.num_rows
    return {"rows": rows, "s": time.perf_counter() - began}


def fold(uri: Path) -> dict[str, float]:
    """Measure the seconds to fold all records into the tables."""
    dataset, began = Dataset.open(uri), time.perf_counter()
    dataset.fold()
    return {"s": time.perf_counter() - began}


def time_queries(uri: Path) -> dict[str, float]:
    """Measure the median seconds of each query."""
    dataset = Dataset.open(uri)
    seconds_by_query = {metric: median_s(dataset.query, [sql] * ASKED_TIMES) for metric, sql in AGGREGATES.items()}
    some = dataset.query("SELECT image_id FROM images WHERE image_id % 7 = 3 LIMIT 2000").column(0).to_pylist()
    image_ids = some[:: max(1, len(some) // IMAGES_ASKED)][:IMAGES_ASKED]
    of_image = "SELECT * FROM masks WHERE image_id = {}"
    seconds_by_query["masks of one image, by its id alone"] = median_s(
        dataset.query, [of_image.format(each) for each in image_ids]
    )
    seconds_by_query["masks of one image"] = median_s(dataset.masks_of_image, image_ids)
    return seconds_by_query


def median_s(call: Callable[[Any], pa.Table], arguments: list[Any]) -> float:
    """Measure the median wall seconds of a call.

    Raises:
        ValueError: a result has no rows, so nothing was measured.
    """
    seconds = []
    for argument in arguments:
        began = time.perf_counter()
        answer = call(argument)
        seconds.append(time.perf_counter() - began)
        if not answer.num_rows:
            raise ValueError(f"{argument}: no rows")
    return statistics.median(seconds)


def commit_rows(dataset: Dataset, plan: Plan, shard: PlannedShard, rows: pa.Table, *, masks: int) -> Commit:
    """Commit a shard of these rows, with a placeholder for its tar."""
    attempt = begin_attempt(dataset.store, plan, shard)
    attempt.put_part("tar", "tar", lambda file: file.write(b"placeholder"), images=IMAGES_A_SHARD, masks=masks)
    contents.put_rows(attempt, rows, images=IMAGES_A_SHARD, masks=masks)
    return attempt.commit(model_id=str(plan.settings.get("model_id", "")), seconds=60.0)


def image_rows(image_ids: np.ndarray, plan: Plan, shard: PlannedShard) -> pa.Table:
    """Make rows of `images`; ids are int64 [N], ascending."""
    keys = [f"{image_id:016x}" for image_id in image_ids]
    nbytes = 400_000 + image_ids % 300_000
    columns = {
        "image_id": image_ids,
        "key": keys,
        "height": HEIGHT,
        "width": WIDTH,
        "format": "jpg",
        "nbytes": nbytes,
        "source": [f"photos/{key}.jpg" for key in keys],
        "source_sha256": [key * 4 for key in keys],
        "stored_sha256": [key[::-1] * 4 for key in keys],
        "license": "CC0-1.0",
        "country": "",
        "plan": plan.home,
        "shard": shard.name,
        "part": f"data/{plan.home}/{shard.name}/g0-{keys[0]}{keys[1]}.tar",
        "member_offset": np.cumsum(nbytes) - nbytes + 512,
        "member_nbytes": nbytes,
    }
    return as_table(columns, IMAGES, len(image_ids))


def mask_rows(image_ids: np.ndarray, plan: Plan, shard: PlannedShard, rng: np.random.Generator) -> pa.Table:
    """Make rows of `masks` distributed as in a real run: many small masks, scores just above their thresholds."""
    counts = np.maximum(1, rng.gamma(4, MASKS_AN_IMAGE / 4, len(image_ids)).astype(np.int64))
    total = int(counts.sum())
    ordinal = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    side = np.minimum(np.exp(rng.normal(4.6, 1.0, (2, total))), [[WIDTH - 1], [HEIGHT - 1]]).astype(np.int32) + 1
    x0, y0 = (rng.random((2, total)) * (np.array([[WIDTH], [HEIGHT]]) - side)).astype(np.int32)
    nbytes = np.repeat(counts * 450, counts)
    columns = {
        "image_id": np.repeat(image_ids, counts),
        "mask_id": rng.integers(2**63, size=total, dtype=np.int64),
        "plan": plan.home,
        "shard": shard.name,
        "generation": 0,
        "part": f"data/{plan.home}/{shard.name}/g0-{image_ids[0]:016x}{image_ids[1]:016x}.tar",
        "member_offset": np.repeat(np.cumsum(counts * 450 + 800), counts),
        "member_nbytes": nbytes,
        "ordinal": ordinal,
        "x0": x0,
        "y0": y0,
        "x1": x0 + side[0],
        "y1": y0 + side[1],
        "area_px": np.maximum(1, side[0] * side[1].astype(np.int64) * rng.uniform(0.3, 0.9, total)).astype(np.int64),
        "predicted_iou": 1 - 0.12 * rng.beta(1.5, 2, total),
        "stability_score": 1 - 0.05 * rng.beta(1.5, 2, total),
        "point_x": (rng.integers(32, size=total) + 0.5) * WIDTH / 32,
        "point_y": (rng.integers(32, size=total) + 0.5) * HEIGHT / 32,
        "crop_x0": 0,
        "crop_y0": 0,
        "crop_x1": WIDTH,
        "crop_y1": HEIGHT,
        "stage": "fully_automatic",
        "model_id": MODEL_ID,
        "annotator_id": "",
        "round_id": "",
        "config_hash": plan.settings_hash,
    }
    return as_table(columns, MASKS, total)


def as_table(columns: dict[str, object], schema: pa.Schema, rows: int) -> pa.Table:
    """Make a table of these columns; a single value fills its column."""
    arrays = []
    for field in schema:
        value = columns[field.name]
        if isinstance(value, str | int):
            value = pa.repeat(value, rows)
        array = pa.array(value) if not isinstance(value, pa.Array) else value
        arrays.append(array.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


if __name__ == "__main__":
    main()
