"""What a later version may change: columns, comments, kinds of plans, features that a dataset requires."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pytest

from storage.dataset import Dataset
from storage.errors import StoreError
from storage.marker import MARKER
from storage.tables import columns, delta, rows
from storage.tables.columns import conform


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    samples.ingest(dataset, shards=1)
    samples.mask(dataset)
    dataset.fold()
    return dataset


def test_a_column_that_a_later_version_adds_is_null_in_earlier_rows(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = filled.snapshot()
    samples.ingest(filled, shards=1, first=50)  # its part lacks the column, too
    wider = columns.IMAGES.append(pa.field("camera", pa.string(), metadata={"comment": "maker and model"}))
    monkeypatch.setitem(columns.SCHEMAS, "images", wider)
    filled.fold()
    monkeypatch.setattr(rows, "IMAGES", wider)
    samples.ingest(filled, shards=1, first=100)
    filled.fold()
    answer = filled.query("SELECT count(*) AS n, count(camera) AS known FROM images").to_pylist()
    assert answer == [{"n": 6, "known": 0}]
    assert filled.query("SELECT count(*) AS n FROM images", snapshot.snapshot_id).to_pylist() == [{"n": 2}]
    assert filled.maintenance.verify().faults == ()
    filled.maintenance.rebuild_tables()
    assert filled.query("SELECT count(*) AS n FROM images WHERE camera IS NULL").to_pylist() == [{"n": 6}]
    assert filled.maintenance.verify().faults == ()


def test_a_comment_that_changes_stops_no_fold(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = columns.SCHEMAS["shards"]
    comment = schema.field("kind").with_metadata({"comment": "another sentence"})
    monkeypatch.setitem(columns.SCHEMAS, "shards", schema.set(schema.get_field_index("kind"), comment))
    samples.ingest(filled, shards=1, first=50)
    assert filled.fold().records == 1
    assert filled.maintenance.verify().faults == ()


def test_rows_with_a_column_of_a_newer_version_are_refused_in_words() -> None:
    with pytest.raises(StoreError, match=r"part: has the columns camera, unknown to this version; use a newer"):
        conform(pa.table({"camera": ["x"]}), columns.REJECTS, "part")


def test_a_dataset_that_requires_an_unknown_feature_is_refused_in_words(filled: Dataset) -> None:
    marker = json.loads(filled.store.get(MARKER))
    filled.store.put(MARKER, json.dumps({**marker, "requires": ["layers"]}).encode())
    with pytest.raises(StoreError, match="needs layers, which this version does not know; use a newer gigamask"):
        Dataset.open(filled.uri)


def test_tables_keep_the_comments_that_they_were_created_with(filled: Dataset) -> None:
    fields = delta.open_table(filled.store, "tables", "masks").schema().fields
    assert {field.name: field.metadata["comment"] for field in fields} == {
        field.name: field.metadata[b"comment"].decode() for field in columns.MASKS
    }
