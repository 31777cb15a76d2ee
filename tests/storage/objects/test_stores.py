import errno
import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from storage.errors import Conflict, Corrupt, NotFound, StoreError
from storage.objects.local import LocalStore
from storage.objects.stores import ObjectStore, open_store, sha256_of


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


S3 = pytest.param("s3", marks=[pytest.mark.slow, pytest.mark.xdist_group("s3_server")])


@pytest.fixture(params=["local", S3])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Both kinds of store keep the same promises."""
    if request.param == "local":
        return LocalStore(tmp_path / "root")
    return open_store(request.getfixturevalue("s3_uri"))


def test_an_object_comes_back_whole_and_in_pieces(store: ObjectStore, tmp_path: Path) -> None:
    assert store.put("data/p/s/a.tar", b"0123456789").nbytes == 10
    (tmp_path / "file").write_bytes(b"abc")
    assert store.put_file("data/p/s/b.tar", tmp_path / "file").nbytes == 3
    assert store.get("data/p/s/a.tar") == b"0123456789"
    assert store.get_range("data/p/s/a.tar", 3, 4) == b"3456"
    assert store.head("data/p/s/b.tar").nbytes == 3
    assert sha256_of(store, "data/p/s/b.tar") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert list(store.list("data/p/")) == ["data/p/s/a.tar", "data/p/s/b.tar"]
    store.delete("data/p/s/a.tar")
    store.delete("data/p/s/a.tar")
    assert list(store.list("")) == ["data/p/s/b.tar"]


def test_keys_are_listed_in_their_own_order_and_by_any_prefix(store: ObjectStore) -> None:
    keys = ["folds/1.json", "folds/1/x", "folds/10.json", "folds/1.done.json", "f"]
    for key in keys:
        store.put(key, b"")
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("folds/1.")) == ["folds/1.done.json", "folds/1.json"]
    assert list(store.list("nothing/")) == []


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    for call in (store.get, store.head, store.open):
        with pytest.raises(NotFound, match="no such object"):
            call("commits/p/s.g0.json")
    store.put("short", b"abc")
    assert store.get_range("short", 1, 0) == b""
    with pytest.raises(Corrupt, match=r"expected 5|shorter"):
        store.get_range("short", 1, 5)


def test_of_racing_writers_one_creates_the_object_and_all_others_get_conflict(store: ObjectStore) -> None:
    start, outcomes = threading.Barrier(16), []

    def write(number: int) -> None:
        start.wait()
        try:
            store.put_if_absent("commit", str(number).encode())
            outcomes.append(("won", number))
        except Conflict:
            outcomes.append(("lost", number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for outcome, number in outcomes if outcome == "won"]
    assert len(outcomes) == 16
    assert [str(number).encode() for number in winners] == [store.get("commit")]
    assert list(store.list("")) == ["commit"]
    assert list(store.unfinished()) == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a//b", "a/./b", "a\0b"])
def test_a_key_cannot_lead_out_of_the_folder(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="object key"):
        store.put(key, b"")


def test_a_write_that_fails_half_way_leaves_nothing_to_be_seen(local: LocalStore) -> None:
    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match=r"a\.tar: no space left .* run the same command again"):
        local.write("data/a.tar", fill)
    assert [path for path in local.root.rglob("*") if path.is_file()] == []


def test_an_error_of_the_caller_passes_through_and_leaves_nothing(local: LocalStore) -> None:
    def fill(file: BinaryIO) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        local.write("data/a.tar", fill)
    assert [path for path in local.root.rglob("*") if path.is_file()] == []


def test_an_object_is_durable_before_it_gets_its_name(local: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    for name in ("fsync", "replace", "link"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, name=name: (steps.append(name), real(*args))[1])
    local.put("x", b"1")
    assert steps[-3:] == ["fsync", "replace", "fsync"]
    local.put_if_absent("y", b"1")
    assert steps[-3:] == ["fsync", "link", "fsync"]


def test_addresses_choose_the_store(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/a%20b").uri == f"{tmp_path}/a b"
    assert open_store(tmp_path).uri == str(tmp_path)
    with pytest.raises(ValueError, match="'gs' is not known"):
        open_store("gs://bucket/prefix")


def test_listing_passes_over_an_object_that_vanishes_meanwhile(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for name in "abc":
        store.put(f"data/{name}", b"1")
    keys = store.list("data/")
    assert next(keys) == "data/a"
    store.delete("data/b")
    assert list(keys) == ["data/c"]


def test_a_late_writer_whose_half_written_file_was_cleaned_away_meets_a_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one made the object, so cleaning took this one's temporary file for garbage."""
    store, real = LocalStore(tmp_path), os.link

    def cleaned_first(source: Path, target: Path) -> None:
        os.unlink(source)
        target.write_bytes(b"theirs")
        real(source, target)

    monkeypatch.setattr(os, "link", cleaned_first)
    with pytest.raises(Conflict):
        store.put_if_absent("folds/00000001.done.json", b"ours")
    assert store.get("folds/00000001.done.json") == b"theirs"


def test_only_a_torn_object_is_removed_as_torn(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("log/whole.json", b"{}")
    store.put("log/torn.json", b"{")
    assert store.remove_torn("log/torn.json", lambda data: data == b"{")
    assert not store.remove_torn("log/whole.json", lambda data: data == b"{")
    assert not store.remove_torn("log/none.json", lambda data: True)
    assert list(store.list("log/")) == ["log/whole.json"]
    assert list(store.unfinished()) == []
