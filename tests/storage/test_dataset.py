import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storage.dataset import Dataset
from storage.errors import Conflict, Corrupt, NotFound, StoreError
from storage.objects.local import LocalStore
from storage.protocol.plans import PlannedShard
from tests.image_records import photo_key
from tests.paths import ROOT

SHARD = PlannedShard(name="00000")


def test_a_dataset_is_opened_where_it_was_created(tmp_path: Path) -> None:
    Dataset.create(tmp_path / "a" / "b")
    assert Dataset.open(f"file://{tmp_path}/a/b").plans() == []
    assert Dataset.open_or_create(tmp_path / "a" / "b").status() == []
    with pytest.raises(Conflict, match="a dataset already"):
        Dataset.create(tmp_path / "a" / "b")


def test_a_creation_whose_last_reply_is_lost_has_created_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalStore.put_if_absent

    def put_and_lose_the_reply(self: LocalStore, key: str, data: bytes) -> None:
        real(self, key, data)
        if key == "dataset.json":
            raise Conflict(f"{key} is already there")

    monkeypatch.setattr(LocalStore, "put_if_absent", put_and_lose_the_reply)
    assert Dataset.create(tmp_path / "dataset").plans() == []


def test_of_racing_creators_all_open_the_same_dataset(tmp_path: Path) -> None:
    barrier, opened = threading.Barrier(4), []

    def work() -> None:
        barrier.wait()
        opened.append(Dataset.open_or_create(tmp_path / "dataset").store.get("dataset.json"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    assert len(set(opened)) == 1


def test_a_creation_that_died_half_way_is_completed(tmp_path: Path) -> None:
    Dataset.create(tmp_path / "dataset")
    (tmp_path / "dataset" / "dataset.json").unlink()
    with pytest.raises(NotFound, match="no dataset there"):
        Dataset.open(tmp_path / "dataset")
    assert Dataset.open_or_create(tmp_path / "dataset").query("SELECT * FROM masks").num_rows == 0


def test_a_newer_format_and_a_damaged_marker_are_refused(dataset: Dataset) -> None:
    dataset.store.put("dataset.json", b'{"format":7}')
    with pytest.raises(StoreError, match=r"dataset\.json: format 7, this version reads 1 to 3; use a newer gigamask"):
        Dataset.open(dataset.uri)
    dataset.store.put("dataset.json", b'{"for')
    with pytest.raises(Corrupt, match="damaged"):
        Dataset.open_or_create(dataset.uri)


def test_a_file_in_place_of_the_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for call in (Dataset.open, Dataset.create, Dataset.open_or_create):
        for place in (tmp_path / "photo.jpg", tmp_path / "photo.jpg" / "below"):
            with pytest.raises(StoreError, match="a file lies where a folder is expected"):
                call(place)
    assert (tmp_path / "photo.jpg").read_bytes() == b"x"


def test_a_foreign_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"not empty and no dataset \(notes/todo.txt is there\)"):
        Dataset.open_or_create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_what_a_creation_that_was_cut_off_left_is_one_clear_error(tmp_path: Path) -> None:
    uri = tmp_path / "dataset"
    Dataset.create(uri)
    (uri / "dataset.json").unlink()
    assert Dataset.open_or_create(uri).status() == []  # whole files are used
    (uri / "dataset.json").unlink()
    (uri / "folds" / "00000000.done.json").unlink()
    (uri / "tables/masks/_delta_log/00000000000000000000.json").write_bytes(b"{")
    with pytest.raises(
        StoreError, match=r"dataset: the creation .* was cut off there, .*; delete tables/, folds/, probes/"
    ):
        Dataset.open_or_create(uri)
    for name in ("tables", "folds", "probes"):
        shutil.rmtree(uri / name)
    assert Dataset.open_or_create(uri).status() == []


def test_a_dataset_copied_in_part_is_not_made_into_a_new_one(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    dataset.store.delete("dataset.json")
    with pytest.raises(StoreError, match="copied in part"):
        Dataset.open_or_create(dataset.uri)


def test_an_unwritable_folder_is_one_clear_error() -> None:
    """In a process without root's rights, which would write anywhere; pytest's own folders are closed to it."""
    with tempfile.TemporaryDirectory() as own:
        if os.getuid() == 0:
            os.chmod(own, 0o755)
            if not all(path.stat().st_mode & 0o001 for path in Path(own).parents):
                pytest.skip(f"another user cannot reach {own}; set TMPDIR to a folder that all may enter")
        folder = Path(own) / "locked"
        folder.mkdir(mode=0o555)
        script = f"""
import os, sys
from storage.dataset import Dataset
if os.getuid() == 0:
    os.setuid(65534)
try:
    Dataset.open_or_create({str(folder / "dataset")!r})
except Exception as error:
    print(type(error).__name__, error)
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.stdout.startswith("StoreError"), done.stderr
    assert "not writable" in done.stdout
    assert done.stdout.count("\n") == 1


def test_images_come_back_as_they_were_written(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = samples.ingest(dataset, shards=2, images=3)
    read = {
        image.image_id: (image, data) for commit in dataset.commits(plan) for image, data in dataset.read_images(commit)
    }
    written = [samples.make_image(number) for number in range(6)]
    assert read == {image.image_id: (image, data) for image, data in written}


def test_the_same_images_give_the_same_tar(tmp_path: Path, samples: SimpleNamespace) -> None:
    tars = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        dataset = Dataset.create(tmp_path / name)
        plan = dataset.new_plan("images", [SHARD], {})
        commit = dataset.write_images(plan, SHARD, [samples.make_image(number) for number in order])
        tars.append(dataset.store.get(commit.tars()[0].key))
    assert tars[0] == tars[1]


def test_masks_come_back_with_their_provenance(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    plan = samples.mask(dataset)
    for shard, commit in zip(plan.shards, dataset.commits(plan), strict=True):
        for image, masks in dataset.read_masks(commit.address):
            assert repr(masks) == repr(samples.make_masks(image, plan, shard))
            assert masks[0].provenance.model_id == "seed-0123"


def test_one_mask_is_one_range_read_away(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.ingest(dataset)
    plan = samples.mask(dataset)
    dataset.fold()
    commit = dataset.commits(plan)[1]
    image, masks = list(dataset.read_masks(commit))[1]
    reads = []
    real = dataset.store.get_range
    monkeypatch.setattr(dataset.store, "get_range", lambda *args: (reads.append(args), real(*args))[1])
    found = dataset.read_mask(image.image_id, masks[1].mask_id)
    assert repr(found) == repr(masks[1])
    assert len(reads) == 1
    with pytest.raises(NotFound, match="no mask 5 of image"):
        dataset.read_mask(image.image_id, 5)


def test_images_without_masks_and_shards_without_images_are_kept(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    dataset.write_images(plan, SHARD, [], [samples.make_reject(1)])
    masks_plan = dataset.new_plan("masks", [SHARD], {})
    image, _ = samples.make_image(1)
    commit = dataset.write_masks(masks_plan, SHARD, [(image, [])])
    assert [(each.image_id, masks) for each, masks in dataset.read_masks(commit)] == [(image.image_id, [])]
    dataset.fold()
    assert dataset.query("SELECT reason FROM rejects").to_pylist() == [{"reason": "truncated"}]
    assert dataset.maintenance.verify().faults == ()


def test_known_images_are_those_folded_and_those_not_yet(dataset: Dataset, samples: SimpleNamespace) -> None:
    assert dataset.known_image_ids() == {}
    samples.ingest(dataset, shards=1)
    dataset.fold()
    samples.ingest(dataset, shards=1, first=10)
    expected = [samples.make_image(number)[0] for number in (0, 1, 10, 11)]
    assert dataset.known_image_ids() == {image.image_id: bytes.fromhex(image.source_sha256) for image in expected}


def test_status_names_what_is_missing(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = dataset.new_plan("images", [PlannedShard(name=name) for name in ("a", "b", "c")], {})
    dataset.write_images(plan, plan.shards[1], [samples.make_image(1)])
    (status,) = dataset.status()
    assert (status.planned, status.done, status.missing, status.given_up) == (3, 1, ("a", "c"), ())


@pytest.mark.parametrize("folded", [False, True])
def test_status_tells_given_up_shards_from_those_that_are_done(
    dataset: Dataset, samples: SimpleNamespace, folded: bool
) -> None:
    def told() -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
        if folded:
            dataset.fold()
        return [(each.done, each.missing, each.given_up) for each in dataset.status()]

    plan = dataset.new_plan("images", [PlannedShard(name=name, inputs=(photo_key(name),)) for name in "abc"], {})
    dataset.write_images(plan, plan.shards[1], [samples.make_image(1)])
    dataset.maintenance.close(plan)
    assert told() == [(1, (), ("a", "c"))]

    redo = dataset.maintenance.plan_redo(plan, ["a", "b"])  # of a shard that was given up, and of one that was made
    dataset.write_images(redo, redo.shards[0], [samples.make_image(2)])
    assert told() == [(2, (), ("c",)), (1, ("b",), ())]
    dataset.maintenance.close(redo)
    assert told() == [(2, (), ("c",)), (1, (), ("b",))]
    dataset.store.delete(next(key for key in dataset.store.list("tables/shards/") if key.endswith(".json")))
    assert [each.given_up for each in Dataset.open(dataset.uri).status()] == [("c",), ("b",)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nbytes": 1}, "bytes given are not those of its record"),
        ({"stored_sha256": "0" * 64}, "bytes given are not those of its record"),
        ({"key": "0"}, "do not follow from its SHA-256"),
        ({"format": "bmp"}, "jpg or png"),
    ],
)
def test_an_image_that_its_record_contradicts_is_refused(
    dataset: Dataset, samples: SimpleNamespace, change: dict[str, Any], message: str
) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    image, data = samples.make_image(1)
    with pytest.raises(ValueError, match=message):
        dataset.write_images(plan, SHARD, [(replace(image, **change), data)])
    assert dataset.missing(plan) == [SHARD]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area_px": 1}, "not that of its runs"),
        ({"box_xyxy": (0, 0, 1, 1)}, "not that of its runs"),
        ({"image_id": 1}, "expected image"),
    ],
)
def test_a_mask_that_contradicts_itself_is_refused(
    dataset: Dataset, samples: SimpleNamespace, change: dict[str, Any], message: str
) -> None:
    plan = dataset.new_plan("masks", [SHARD], {})
    image, _ = samples.make_image(1)
    masks = samples.make_masks(image, plan, SHARD)
    with pytest.raises(ValueError, match=message):
        dataset.write_masks(plan, SHARD, [(image, [replace(masks[0], **change)])])
    with pytest.raises(ValueError, match="same id"):
        dataset.write_masks(plan, SHARD, [(image, [masks[0], masks[0]])])


def test_a_damaged_shard_is_never_read_in_silence(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = samples.ingest(dataset, shards=1)
    masks_plan = samples.mask(dataset)
    for commit, read in (
        (dataset.commits(plan)[0], dataset.read_images),
        (dataset.commits(masks_plan)[0], dataset.read_masks),
    ):
        path = Path(dataset.uri) / commit.tars()[0].key
        data = bytearray(path.read_bytes())
        data[560] ^= 1
        path.write_bytes(data)
        with pytest.raises((Corrupt, ValueError)):
            list(read(commit))


@pytest.mark.slow
def test_a_program_that_withdraws_masks_ends_without_an_abort(dataset: Dataset, samples: SimpleNamespace) -> None:
    """Threads that outlive the interpreter aborted four such programs in ten, after their work was done."""
    samples.ingest(dataset, shards=1, images=6)
    samples.mask(dataset)
    dataset.fold()
    program = (
        "import sys; from storage.dataset import Dataset; dataset = Dataset.open(sys.argv[1]); "
        "rows = dataset.query('SELECT image_id, mask_id FROM masks LIMIT 1').to_pylist(); "
        "dataset.withdraw([tuple(row.values()) for row in rows], 'wrong')"
    )
    for _ in range(12):
        ended = subprocess.run([sys.executable, "-c", program, dataset.uri], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")
    assert dataset.query("SELECT count(*) AS n FROM masks").to_pylist() == [{"n": 6}]
