import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.dataset import Dataset
from storage.errors import Conflict, StoreError
from storage.objects import probing
from storage.objects.local import LocalStore
from storage.objects.stores import ObjectStore


@pytest.fixture
def copied(dataset: Dataset, samples: SimpleNamespace, tmp_path: Path) -> Dataset:
    """A dataset that was made elsewhere."""
    samples.ingest(dataset)
    shutil.copytree(dataset.uri, tmp_path / "copy")
    return Dataset.open(tmp_path / "copy")


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Address of the store of each race."""
    seen: list[str] = []
    real = probing._race

    def race(store: ObjectStore, key: str) -> StoreError | None:
        seen.append(store.uri)
        return real(store, key)

    monkeypatch.setattr(probing, "_race", race)
    return seen


def test_a_place_is_probed_before_the_first_write_and_never_again(
    dataset: Dataset, copied: Dataset, samples: SimpleNamespace, races: list[str]
) -> None:
    copied.query("SELECT count(*) FROM images")
    assert races == []
    samples.ingest(copied, shards=1, first=50)
    assert races == [copied.uri] * 3
    samples.ingest(Dataset.open(copied.uri), shards=1, first=60)
    samples.ingest(Dataset.open(dataset.uri), shards=1, first=50)  # probed when it was created
    assert races == [copied.uri] * 3
    assert list(copied.store.list("folds/probe")) == []
    copied.fold()
    assert copied.maintenance.verify().faults == ()


def test_threads_that_write_first_wait_for_one_probe(
    copied: Dataset, samples: SimpleNamespace, races: list[str]
) -> None:
    threads = [
        threading.Thread(target=samples.ingest, args=(copied,), kwargs={"shards": 1, "first": first})
        for first in (50, 60, 70)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(races) == 3
    assert len(copied.plans()) == 4


def test_a_copy_on_a_store_without_put_if_absent_takes_no_write(
    copied: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(copied.store.list(""))
    with monkeypatch.context() as patch:
        patch.setattr("storage.objects.local.os.link", os.replace)  # the second put replaces the first
        for _ in range(2):
            with pytest.raises(StoreError, match="no working put-if-absent and cannot hold a dataset"):
                samples.ingest(copied, shards=1, first=50)
    assert sorted(copied.store.list("")) == before


class Lossy(LocalStore):
    """Loses the answer to some puts: the object is there, and the client is told of an error, or of a rival."""

    def __init__(self, root: Path, lost: int, error: type[StoreError]) -> None:
        super().__init__(root)
        self.lost, self.error = lost, error

    def put_if_absent(self, key: str, data: bytes) -> None:
        super().put_if_absent(key, data)
        if self.lost > 0:
            self.lost -= 1
            raise self.error("lost")


@pytest.mark.parametrize("error", [StoreError, Conflict])
def test_a_lost_answer_does_not_refuse_a_sound_store(tmp_path: Path, error: type[StoreError], races: list[str]) -> None:
    probing.probe(Lossy(tmp_path, 2, error))
    assert len(races) == 5


@pytest.mark.parametrize("error", [StoreError, Conflict])
def test_answers_that_keep_getting_lost_are_one_clear_error(tmp_path: Path, error: type[StoreError]) -> None:
    with pytest.raises(StoreError, match="6 of 6 races of 16 writers had no clear winner, because answers got lost"):
        probing.probe(Lossy(tmp_path, 1000, error))
    assert list(LocalStore(tmp_path).list("")) == []
