"""Files of tables that nothing names: found, and deleted only where nothing can come to name them."""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from storage.dataset import Dataset
from storage.errors import StoreError
from storage.objects.stores import ObjectStore
from storage.tables import changes, delta
from storage.tables.columns import MASKS, SCHEMAS
from storage.tables.orphans import claim_to_publish, find_orphans
from storage.tables.rebuild import rebuild

COUNT = "SELECT count(*) AS n, count(DISTINCT mask_id) AS ids FROM masks"
STEPS = ["claim", "look again", "fence", "read the log again", "delete"]


class Died(BaseException):
    """Nothing catches it: as good as a kill between two steps."""


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    samples.ingest(dataset)
    samples.mask(dataset)
    dataset.fold()
    return dataset


def left_by_a_killed_fold(dataset: Dataset, folder: str = "tables") -> list[str]:
    """A data file, one half-written, and a half-written log entry, none of them named by a version."""
    keys = [f"{folder}/masks/part-00000-{'0' * 8}.zstd.parquet", f"{folder}/masks/part-00001.parquet#1"]
    keys += [f"{folder}/masks/_delta_log/{9:020d}.json#1"]
    for key in keys:
        dataset.store.put(key, b"x" * 100)
    return keys


def left_by_a_killed_rebuild(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder of whole tables that no fold names."""

    def die(*_: object) -> None:
        raise Died

    before = set(dataset.store.list("tables"))
    with monkeypatch.context() as patch:
        patch.setattr("storage.tables.rebuild.claim_to_publish", die)
        with pytest.raises(Died):
            rebuild(dataset.store)
    return sorted(set(dataset.store.list("tables")) - before)


def test_what_killed_folds_and_rebuilds_left_is_found_and_deleted(
    filled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = filled.snapshot()
    filled.maintenance.rebuild_tables()
    sound = set(filled.store.list("tables"))
    assert filled.maintenance.clean().table_files == ()
    left = [*left_by_a_killed_fold(filled), *left_by_a_killed_rebuild(filled, monkeypatch)]
    assert len(left) > 10

    dry = filled.maintenance.clean()
    assert (sorted(dry.table_files), dry.deleted) == (sorted(left), False)
    assert set(left) | sound == set(filled.store.list("tables"))
    report = filled.maintenance.clean(delete=True)
    assert sorted(report.table_files) == sorted(left)
    assert report.nbytes == dry.nbytes > 300
    assert sound <= set(filled.store.list("tables"))
    assert not set(left) & set(filled.store.list("tables"))
    assert (
        filled.query(COUNT, snapshot.snapshot_id).to_pylist()
        == filled.query(COUNT).to_pylist()
        == [{"n": 12, "ids": 12}]
    )
    assert filled.maintenance.verify().faults == ()
    assert filled.maintenance.clean(delete=True).table_files == ()


@pytest.mark.parametrize("step", STEPS)
def test_cleaning_that_died_before_any_step_harms_nothing_and_is_completed(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    left = [*left_by_a_killed_fold(filled), *left_by_a_killed_rebuild(filled, monkeypatch)]

    def die(at: str) -> None:
        if at == step:
            raise Died

    with pytest.raises(Died):
        find_orphans(filled.store, delete=True, before_step=die)
    samples.ingest(filled, shards=1, first=50)
    filled.fold()
    assert filled.maintenance.verify().faults == ()
    filled.maintenance.clean(delete=True)
    assert not set(left) & set(filled.store.list("tables"))
    assert filled.maintenance.verify().faults == ()
    assert filled.query("SELECT count(*) AS n FROM images").to_pylist() == [{"n": 6}]


def test_a_writer_that_stood_still_cannot_publish_what_was_deleted(filled: Dataset) -> None:
    """It has written its file and goes on after cleaning, as a fold that was frozen."""
    frozen = delta.open_table(filled.store, "tables", "masks")
    key = "tables/masks/part-00000-frozen.zstd.parquet"
    pq.write_table(MASKS.empty_table(), Path(filled.uri) / key)
    assert find_orphans(filled.store, delete=True).keys() == {key}
    with pytest.raises(CommitFailedError):
        commit(frozen, Path(filled.uri) / key)
    assert filled.maintenance.verify().faults == ()


def test_a_file_that_a_writer_publishes_while_cleaning_looks_is_kept(filled: Dataset) -> None:
    writer = delta.open_table(filled.store, "tables", "masks")
    path = Path(filled.uri) / "tables/masks/part-00000-faster.zstd.parquet"
    pq.write_table(MASKS.empty_table(), path)
    faster: Callable[[str], None] = lambda step: commit(writer, path) if step == "fence" else None  # noqa: E731
    assert find_orphans(filled.store, delete=True, before_step=faster) == {}
    assert path.exists()
    assert str(path) in delta.open_table(filled.store, "tables", "masks").file_uris()


def commit(table: DeltaTable, path: Path) -> None:
    nbytes = path.stat().st_size if path.exists() else 1000
    added = AddAction(
        path=path.name, size=nbytes, partition_values={}, modification_time=0, data_change=True, stats="{}"
    )
    once = CommitProperties(max_commit_retries=0)
    table.create_write_transaction([added], "append", table.schema(), [], commit_properties=once)


def test_a_fold_that_is_writing_writes_again_and_folds_everything_once(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.mask(filled, {"model": "other"})
    real = changes.rows_of
    cleaned: list[int] = []

    def rows_of(store: ObjectStore, name: str, *rest: object) -> delta.Rows:
        rows = real(store, name, *rest)

        def with_cleaning_beside() -> Iterable[pa.Table]:
            yield from rows()
            if name == "masks" and not cleaned:
                left_by_a_killed_fold(filled)
                beside = threading.Thread(target=lambda: cleaned.append(len(find_orphans(store, delete=True))))
                beside.start()  # the library's own threads cannot open a table
                beside.join()

        return with_cleaning_beside

    monkeypatch.setattr(changes, "rows_of", rows_of)
    filled.fold()
    assert cleaned[0] >= 3
    assert filled.query(COUNT).to_pylist() == [{"n": 24, "ids": 24}]
    assert filled.maintenance.verify().faults == ()


def test_a_rebuild_that_stood_still_does_not_publish_deleted_tables(
    filled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cleaned_before(store: ObjectStore, folder: str) -> None:
        assert filled.maintenance.clean(delete=True).table_files
        claim_to_publish(store, folder)

    with monkeypatch.context() as patch:
        patch.setattr("storage.tables.rebuild.claim_to_publish", cleaned_before)
        with pytest.raises(StoreError, match="deleted these unpublished tables; run `gigamask rebuild` again"):
            filled.maintenance.rebuild_tables()
    assert filled.maintenance.verify().faults == ()
    filled.maintenance.rebuild_tables()
    assert filled.query(COUNT).to_pylist() == [{"n": 12, "ids": 12}]


def test_a_rebuild_that_has_claimed_its_folder_keeps_it(filled: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def cleaned_after(store: ObjectStore, folder: str) -> None:
        claim_to_publish(store, folder)
        assert filled.maintenance.clean(delete=True).table_files == ()

    monkeypatch.setattr("storage.tables.rebuild.claim_to_publish", cleaned_after)
    filled.maintenance.rebuild_tables()
    assert filled.maintenance.clean(delete=True).table_files == ()
    assert filled.maintenance.verify().faults == ()


@pytest.mark.parametrize("damaged", ["folds/00000000.done.json", "tables/masks/_delta_log/00000000000000000001.json"])
def test_where_the_names_cannot_be_read_nothing_is_deleted(filled: Dataset, damaged: str) -> None:
    left = left_by_a_killed_fold(filled)
    filled.store.put(damaged, b"{")
    assert find_orphans(filled.store, delete=True) == {}
    assert set(left) <= set(filled.store.list("tables"))


def test_foreign_files_beside_the_tables_stay(filled: Dataset) -> None:
    foreign = ["tables/masks/notes.txt", "tables-copy/masks/part-0.parquet", "tables/masks/_delta_log/x.crc"]
    for key in foreign:
        filled.store.put(key, b"mine")
    assert find_orphans(filled.store, delete=True) == {}
    assert set(foreign) <= set(filled.store.list("tables"))
    assert os.listdir(Path(filled.uri) / "tables") != []
    assert all(delta.open_table(filled.store, "tables", name).version() >= 0 for name in SCHEMAS)
