import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import duckdb
import polars
import pytest

from storage.dataset import Dataset
from storage.errors import NotFound, StoreError
from storage.tables import delta
from storage.tables.columns import MASKS, SCHEMAS
from storage.tables.fold_log import newest_done
from storage.tables.sql import are_shards


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    samples.ingest(dataset)
    samples.mask(dataset)
    dataset.fold()
    return dataset


def test_an_empty_dataset_answers_with_the_right_columns(dataset: Dataset) -> None:
    for name, schema in SCHEMAS.items():
        answer = dataset.query(f"SELECT * FROM {name}")
        assert answer.num_rows == 0
        assert answer.schema.remove_metadata().equals(schema.remove_metadata())


def test_the_tables_join_and_say_what_was_written(filled: Dataset, samples: SimpleNamespace) -> None:
    answer = filled.query(
        """SELECT i.source, count(*) AS masks, max(m.area_px) AS largest, max(m.x1 - m.x0) AS width
           FROM masks m JOIN images i USING (image_id) GROUP BY i.source ORDER BY i.source"""
    )
    assert answer.to_pylist() == [
        {"source": f"photos/{number}.jpg", "masks": 3, "largest": 45, "width": 9} for number in range(4)
    ]
    (shard,) = filled.query("SELECT * FROM shards WHERE kind = 'masks' AND shard = '00000'").to_pylist()
    assert (shard["images"], shard["masks"], shard["rejects"], shard["generation"]) == (2, 6, 0, 0)
    assert (shard["model_id"], shard["seconds"], json.loads(shard["stats"])) == ("seed-0123", 2.0, {"candidates": 9})
    (drawn,) = filled.query(
        "SELECT count(*) AS n FROM masks WHERE predicted_iou IS NULL AND point_x IS NULL"
    ).to_pylist()
    assert drawn == {"n": 4}


def test_a_snapshot_is_the_same_for_ever(filled: Dataset, samples: SimpleNamespace) -> None:
    before = filled.snapshot()
    assert filled.snapshot() == before
    samples.ingest(filled, shards=1, first=50)
    after = filled.snapshot()
    assert after.snapshot_id != before.snapshot_id
    count = "SELECT count(*) AS n FROM images"
    assert filled.query(count, before.snapshot_id).to_pylist() == [{"n": 4}]
    assert filled.query(count, after.snapshot_id).to_pylist() == filled.query(count).to_pylist() == [{"n": 6}]
    assert filled.snapshots() == [before, after]
    with pytest.raises(NotFound, match=f"no snapshot 'latest'; there are: {before.snapshot_id}, {after.snapshot_id}"):
        filled.query(count, "latest")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nothing FROM masks", "No field named nothing.*masks.area_px"),
        ("SELECT * FROM pictures", "'datafusion.public.pictures' not found; tables are images, masks, shards, rejects"),
        ("SELEC 1", "got SELEC"),
        ("SELECT FROM WHERE", "SQL"),
        ("", "got nothing"),
        ("-- nothing\n", "got nothing"),
        ("SELECT 1 / 0", "Divide by zero"),
    ],
)
def test_wrong_sql_is_one_line_that_helps(filled: Dataset, sql: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        filled.query(sql)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO shards SELECT * FROM shards",
        "EXPLAIN ANALYZE INSERT INTO shards SELECT * FROM shards",
        "WITH x AS (SELECT 1) INSERT INTO shards SELECT * FROM shards",
        "/* SELECT */ DROP TABLE masks",
        "COPY (SELECT * FROM masks) TO 'masks.csv'",
        "SELECT 1; DELETE FROM masks",
        "CREATE TABLE t AS SELECT 1",
    ],
)
def test_sql_cannot_write(filled: Dataset, sql: str) -> None:
    with pytest.raises(ValueError, match="a dataset is read with SELECT"):
        filled.query(sql)
    assert filled.query("SELECT count(*) AS n FROM shards").to_pylist() == [{"n": 4}]


def test_words_that_write_may_stand_in_quotes(filled: Dataset) -> None:
    assert filled.query("SELECT 'drop' AS \"update\" -- delete\n").to_pylist() == [{"update": "drop"}]
    assert filled.query("(SELECT 1 AS a)").to_pylist() == [{"a": 1}]
    assert filled.query("DESCRIBE masks").num_rows == len(MASKS)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT $$COPY$$ AS a, '/* CREATE' AS b, 'x\nlogical_plan\nCopyTo: y' AS c",
        "/* one /* nested */ comment */ SELECT 1 -- DROP",
        "FROM masks SELECT image_id",
        "SELECT 1;",
        "SELECT 1 WHERE false",
        "VALUES (1, 'a')",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
        "SELECT DISTINCT stage FROM masks UNION SELECT kind FROM shards ORDER BY 1 LIMIT 3",
        "SELECT DISTINCT ON (image_id) image_id, mask_id FROM masks ORDER BY image_id, mask_id",
        "SELECT image_id, row_number() OVER (PARTITION BY image_id ORDER BY mask_id) FROM masks",
        "SELECT * FROM masks WHERE image_id NOT IN (SELECT image_id FROM images WHERE width > 5)",
        "SELECT * FROM masks m LEFT JOIN images i USING (image_id) FULL JOIN shards s ON s.plan = m.plan",
        "SELECT * FROM masks, images",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM masks) AND 3 > (SELECT count(*) FROM images)",
        "SELECT unnest([1, 2]), grouping(stage) FROM masks GROUP BY ROLLUP (stage)",
        "SELECT 1 INTERSECT SELECT 1 EXCEPT SELECT 2",
        "SELECT * FROM generate_series(1, 3)",
        "EXPLAIN SELECT * FROM masks",
        "explain verbose SELECT * FROM masks",
        "EXPLAIN FORMAT TREE SELECT * FROM masks",
        "DESC masks",
    ],
)
def test_whatever_reads_is_answered(filled: Dataset, sql: str) -> None:
    assert filled.query(sql) is not None


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "sql",
    [
        "/* /* */ SELECT ' */ COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV -- '",
        "/* /* */ SELECT ' */ COPY (SELECT 1) TO '{marker}' STORED AS CSV -- '",
        "-- SELECT\nCOPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "COPY masks TO '{out}/x.parquet'",
        "WITH x AS (SELECT $$ $$) SELECT 1; COPY (SELECT 1) TO '{out}/x.csv'",
        "ANALYZE COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "(ANALYZE) COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "VERBOSE COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "FORMAT INDENT COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "EXPLAIN /* /* */ ' */ ANALYZE COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV -- '",
        "/**/ EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "EXPLAIN ANALYZE VERBOSE COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "EXPLAIN COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "EXPLAIN EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}/x.csv' STORED AS CSV",
        "EXPLAIN ANALYZE SELECT 1",
        "SELECT * FROM (COPY masks TO '{out}/x.csv')",
        "/* /* */ SELECT ' */ CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{out}/x.csv' -- '",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "CREATE OR REPLACE VIEW masks AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "SELECT * INTO y FROM masks",
        "SET datafusion.execution.batch_size = 1",
        "RESET ALL",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "START TRANSACTION",
        "COMMIT",
        "INSERT INTO masks SELECT * FROM masks",
        "/* /* */ SELECT ' */ INSERT INTO masks SELECT * FROM masks -- '",
        "WITH x AS (INSERT INTO masks SELECT * FROM masks RETURNING *) SELECT * FROM x",
        "WITH x AS (DELETE FROM masks) SELECT * FROM x",
        "UPDATE masks SET x0 = 1",
        "DELETE FROM masks",
        "MERGE INTO masks USING masks m ON true WHEN MATCHED THEN DELETE",
        "TRUNCATE TABLE masks",
        "DROP TABLE masks",
        "ALTER TABLE masks ADD COLUMN a INT",
        "UNLOAD (SELECT 1) TO '{out}/x'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM information_schema.tables",
        "SHOW TABLES",
    ],
)
def test_a_hostile_statement_is_one_error_and_writes_nothing(
    filled: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    before = files_below(tmp_path)
    hostile = sql.replace("{out}", str(out)).replace("{marker}", str(tmp_path / "dataset" / "dataset.json"))
    for ask in (filled.query, lambda text: filled.masks(filter=text).read_all()):
        with pytest.raises(ValueError, match="SQL") as caught:
            ask(hostile)
        assert "\n" not in str(caught.value)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    "shape",
    [
        lambda n: "SELECT 1" + " + 1" * n,
        lambda n: "SELECT 1 FROM masks WHERE " + " OR ".join(f"x0 = {each}" for each in range(n)),
        lambda n: " UNION ALL ".join(["SELECT 1"] * n),
        lambda n: " INTERSECT ".join(["SELECT 1"] * n),
        lambda n: "SELECT 1" + "::int" * n,
        lambda n: "SELECT " + "(" * n + "1" + ")" * n,
        lambda n: "SELECT " + "abs(" * n + "1" + ")" * n,
        lambda n: "SELECT * FROM " + "(SELECT * FROM " * n + "masks" + ")" * n,
    ],
)
def test_sql_nested_too_deeply_is_an_error_and_no_crash(filled: Dataset, shape: Callable[[int], str]) -> None:
    with pytest.raises(ValueError, match=r"operators|RecursionLimit"):
        filled.query(shape(20_000))


@pytest.mark.parametrize(
    "hiding",
    [
        "/* it's */ {} -- it's",
        "-- it's\n{} -- it's",
        r"x0 = length(E'\'') OR {} OR '' = ''",
        "$$'$$ = '' OR {} OR ''=''",
    ],
)
def test_a_quote_in_a_comment_or_an_escape_hides_no_operators(filled: Dataset, hiding: str) -> None:
    chain = " OR ".join(f"x0 = {each}" for each in range(20_000))
    with pytest.raises(ValueError, match="operators, expected at most"):
        filled.query("SELECT count(*) FROM masks WHERE " + hiding.replace("{}", chain))


def test_operators_within_texts_are_not_counted(filled: Dataset) -> None:
    names = ", ".join(f"'masks-{each}-a+b'" for each in range(1000))
    assert filled.query(f"SELECT count(*) AS n FROM masks WHERE plan IN ({names})").to_pylist() == [{"n": 0}]


def test_a_long_list_of_values_is_not_too_deep(filled: Dataset) -> None:
    listed = ", ".join(map(str, range(20_000)))
    assert filled.query(f"SELECT count(*) AS n FROM masks WHERE image_id IN ({listed})").to_pylist() == [{"n": 0}]


@pytest.mark.parametrize(
    "condition",
    [
        "true) UNION (SELECT image_id FROM images WHERE true",
        "true) UNION SELECT image_id FROM images WHERE (true",
        "true) THEN 1 END FROM masks UNION SELECT CASE WHEN (true",
        "true) LIMIT 1 --",
        "true ORDER BY 1",
        "true /*",
        "true) GROUP BY (image_id",
        "1 = 1; COPY (SELECT 1) TO 'x.csv'",
        "true) --",
        "",
    ],
)
def test_what_is_more_than_a_condition_is_refused(filled: Dataset, condition: str) -> None:
    with pytest.raises(ValueError, match="SQL"):
        filled.masks(filter=condition, columns=["image_id"]).read_all()


def test_a_condition_may_be_commented_and_ask_other_tables(filled: Dataset) -> None:
    whole = "x0 >= 0 /* a */ AND image_id IN (SELECT image_id FROM images) -- all of them"
    assert filled.masks(filter=whole).read_all().num_rows == 12
    assert filled.masks(filter="x0 < 0) OR (x0 >= 0").read_all().num_rows == 12


def test_duckdb_polars_and_pandas_read_the_same_rows(filled: Dataset) -> None:
    ours = filled.query("SELECT * FROM masks ORDER BY image_id, mask_id")
    table = delta.open_table(filled.store, "tables", "masks", newest_done(filled.store).versions["masks"])
    files = table.file_uris()
    duck = duckdb.sql(f"SELECT * FROM read_parquet({files!r}) ORDER BY image_id, mask_id").to_arrow_table()
    assert duck.to_pylist() == ours.to_pylist()
    pl = polars.read_parquet(files).sort("image_id", "mask_id")
    assert pl.to_dicts() == ours.to_pylist()
    pandas = ours.to_pandas()
    assert list(pandas.columns) == MASKS.names
    assert pandas["area_px"].sum() == 12 * 45


def test_masks_are_streamed_by_condition_and_columns(filled: Dataset) -> None:
    masks = filled.masks(filter="area_px = 45 AND predicted_iou > 0.5", columns=["mask_id", "stage"]).read_all()
    expected = filled.query("SELECT mask_id, stage FROM masks WHERE area_px = 45 AND predicted_iou > 0.5")
    assert masks.schema.equals(expected.schema)
    assert sorted(masks.to_pylist(), key=str) == sorted(expected.to_pylist(), key=str)
    assert masks.num_rows == 4
    assert filled.masks().read_all().num_rows == 12
    assert filled.masks().schema.names == MASKS.names


def test_masks_of_a_snapshot_stay_those_of_its_day(filled: Dataset, samples: SimpleNamespace) -> None:
    before = filled.snapshot().snapshot_id
    samples.ingest(filled, shards=1, first=50)
    samples.mask(filled)
    filled.fold()
    assert filled.masks(snapshot=before).read_all().num_rows == 12
    assert filled.masks().read_all().num_rows > 12


@pytest.mark.parametrize(
    ("condition", "columns", "words"),
    [
        ("nope = 1", None, "No field named nope"),
        ("true; DROP TABLE masks", None, "got ;"),
        ("true", ["area"], r"columns \['area'\]: expected some of image_id, mask_id"),
        ("true", [], "expected some of"),
    ],
)
def test_a_wrong_condition_or_column_is_one_clear_error(
    filled: Dataset, condition: str, columns: list[str] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        filled.masks(filter=condition, columns=columns).read_all()
    assert "\n" not in str(caught.value)


def test_the_masks_of_an_image_are_found_through_its_shards(filled: Dataset) -> None:
    image_ids = filled.query("SELECT image_id FROM images").column(0).to_pylist()
    for image_id in image_ids:
        by_scan = filled.query(f"SELECT * FROM masks WHERE image_id = {image_id} ORDER BY part, ordinal")
        assert filled.masks_of_image(image_id) == by_scan
        assert by_scan.num_rows == 3
    assert filled.masks_of_image(12345).num_rows == 0


def test_a_stream_that_failed_opens_the_tables_anew_the_next_time(
    dataset: Dataset, samples: SimpleNamespace, tmp_path: Path
) -> None:
    """Of other files, as after a dataset was copied back; or with other credentials."""
    other = Dataset.create(tmp_path / "other")
    for each, shards in ((dataset, 2), (other, 1)):
        samples.ingest(each, shards=shards)
        samples.mask(each)
        each.fold()
    assert dataset.masks().read_all().num_rows == 12
    shutil.rmtree(dataset.uri)
    shutil.copytree(other.uri, dataset.uri)
    with pytest.raises(StoreError):
        dataset.masks().read_all()
    assert dataset.masks().read_all().num_rows == 6


def test_rows_of_thousands_of_shards_are_one_condition(filled: Dataset) -> None:
    (plan,) = [plan.plan_id for plan in filled.plans() if plan.kind == "masks"]
    many = [(plan, f"{number:05d}") for number in range(5000)]
    assert filled.query(f"SELECT count(*) AS n FROM masks WHERE {are_shards(many)}").to_pylist() == [{"n": 12}]
    assert filled.query(f"SELECT count(*) AS n FROM masks WHERE {are_shards([])}").to_pylist() == [{"n": 0}]
