from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.dataset import Dataset
from storage.errors import StoreError
from storage.objects.local import LocalStore
from storage.tables import folds
from storage.tables import query as queries
from storage.verification import chunks, table_checks
from storage.verification.journal import Journal
from storage.verification.verify import VerifyProgress, VerifyReport


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Four image shards, four mask shards, and chunks of one shard."""
    monkeypatch.setattr(chunks, "_RECORDS_AT_ONCE", 1)
    samples.ingest(dataset, shards=4)
    samples.mask(dataset)
    dataset.fold()
    return dataset


@pytest.fixture
def read_keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys below data/ in the order in which they are read."""
    keys: list[str] = []
    real = LocalStore.open

    def noting(self: LocalStore, key: str) -> object:
        if key.startswith("data/"):
            keys.append(key)
        return real(self, key)

    monkeypatch.setattr(LocalStore, "open", noting)
    return keys


def interrupt_after(records: int) -> Callable[[VerifyProgress], None]:
    def stop(progress: VerifyProgress) -> None:
        if progress.records == records:
            raise KeyboardInterrupt

    return stop


def interrupted(dataset: Dataset, path: Path, records: int) -> None:
    with pytest.raises(KeyboardInterrupt), Journal(path) as journal:
        dataset.maintenance.verify(on_progress=interrupt_after(records), journal=journal)
    assert path.exists()


def continued(dataset: Dataset, path: Path) -> VerifyReport:
    with Journal(path) as journal:
        assert journal.begun
        return dataset.maintenance.verify(journal=journal)


def test_an_interrupted_check_continues_without_reading_sound_objects_again(
    filled: Dataset, tmp_path: Path, read_keys: list[str]
) -> None:
    whole = filled.maintenance.verify()
    every = set(read_keys)
    assert len(every) == whole.objects == 16
    path = tmp_path / "journal.txt"
    interrupted(filled, path, records=5)
    read_keys.clear()
    assert continued(filled, path) == whole
    assert len(set(read_keys)) == 7  # of the shard that was under way the rows, of three shards everything
    assert not path.exists()


def test_what_was_damaged_before_an_interruption_is_named_after_it(filled: Dataset, tmp_path: Path) -> None:
    first = filled.commits(filled.plans()[0])[0]
    filled.store.delete(first.parts[0].key)
    path = tmp_path / "journal.txt"
    interrupted(filled, path, records=5)
    assert [fault.key for fault in continued(filled, path).faults] == [first.parts[0].key]


def test_after_a_further_fold_the_rows_are_compared_again(
    filled: Dataset, samples: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "journal.txt"
    interrupted(filled, path, records=8)
    samples.ingest(filled, shards=1, first=50)
    filled.fold()
    report = continued(filled, path)
    assert (report.faults, report.records) == ((), 9)


def test_a_torn_line_of_the_journal_is_passed_over(filled: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "journal.txt"
    interrupted(filled, path, records=5)
    path.write_bytes(path.read_bytes()[:-20] + b"\xff")
    assert continued(filled, path).faults == ()


def test_a_journal_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="the check cannot note how far it is"), Journal(tmp_path / "file" / "x.txt"):
        pass


def test_copies_of_a_dataset_have_journals_of_their_own(filled: Dataset, tmp_path: Path) -> None:
    (tmp_path / "dataset").rename(tmp_path / "moved")
    moved = Dataset.open(tmp_path / "moved")
    path = moved.maintenance.journal()._path
    (tmp_path / "moved").rename(tmp_path / "dataset")
    assert filled.maintenance.journal()._path != path


def test_the_number_of_queries_does_not_follow_the_number_of_shards(
    filled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = queries.query
    monkeypatch.setattr(table_checks, "query", lambda store, done, sql: asked.append(sql) or real(store, done, sql))
    filled.maintenance.verify()
    of_small_chunks = len(asked)
    asked.clear()
    monkeypatch.setattr(chunks, "_RECORDS_AT_ONCE", 256)
    filled.maintenance.verify()
    assert len(asked) == 11  # counts of five tables, values of the four that have rows, ids of two
    assert of_small_chunks > 20


def test_ids_that_are_there_twice_are_found_in_several_passes(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "find_duplicates", lambda *_: {})  # a fold that takes copies, as earlier versions did
    plan = filled.new_plan("images", filled.plans()[0].shards, {"license": "another"})
    for number, shard in enumerate(plan.shards):
        filled.write_images(plan, shard, [samples.make_image(2 * number)])
    filled.fold()
    monkeypatch.setattr(table_checks, "_IDS_AT_ONCE", 3)
    (fault,) = filled.maintenance.verify(fast=True).faults
    assert (fault.key, fault.what) == ("tables/images", "4 images are there more than once")


@pytest.mark.parametrize("error", [KeyError, OverflowError, MemoryError, OSError])
def test_whatever_a_comparison_raises_is_a_fault_of_the_table(
    filled: Dataset, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("x")

    monkeypatch.setattr(table_checks, "differing_columns", fail)
    faults = filled.maintenance.verify().faults
    assert {fault.key for fault in faults} == {f"tables/{name}" for name in ("images", "masks", "shards", "rejects")}
    assert all(error.__name__ in fault.what and fault.advice for fault in faults)
