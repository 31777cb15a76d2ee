"""Erasing images: pixels and outlines are gone everywhere, and nobody brings them back, whoever dies or thaws."""

import json
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from storage import rle
from storage.dataset import Dataset
from storage.errors import Corrupt, Erased, StoreError
from storage.objects.local import LocalStore
from storage.protocol.commits import Commit, begin_attempt
from storage.protocol.erasures import ZeroedDigest, merged, read_erasures
from storage.protocol.inputs import ImageRange, PlanKind, image_inputs
from storage.protocol.plans import PlannedShard
from storage.records import ImageRecord
from storage.tables import contents, delta, erasing
from tests.image_records import photo_key
from tests.small_dataset import small_dataset

WISH = "a person's wish"


@pytest.fixture
def filled(dataset: Dataset, samples: SimpleNamespace) -> Dataset:
    """Two image shards of 2 images, and a mask shard of 6 masks for each; all of it folded."""
    samples.ingest(dataset)
    samples.mask(dataset)
    dataset.fold()
    return dataset


@pytest.fixture
def wanted(samples: SimpleNamespace) -> ImageRecord:
    """The image that the tests erase: photo 1, in image shard 00000."""
    image: ImageRecord = samples.make_image(1)[0]
    return image


def count(dataset: Dataset, image: ImageRecord, snapshot: str | None = None) -> list[int]:
    """Rows of one image in `images`, `masks` and, as erased, in `rejects`."""
    where = f"image_id = {image.image_id}"
    conditions = {"images": where, "masks": where, "rejects": f"source = '{image.key}' AND reason = 'erased'"}
    return [
        dataset.query(f"SELECT count(*) AS n FROM {name} WHERE {condition}", snapshot)["n"][0].as_py()
        for name, condition in conditions.items()
    ]


def traces(dataset: Dataset, samples: SimpleNamespace, number: int = 1) -> list[str]:
    """Files that hold the bytes of a photo, or the outline of a mask in a file about it."""
    image, data = samples.make_image(number)
    plan = next(plan for plan in dataset.plans() if plan.kind == "masks")
    outlines = [rle.to_coco(mask.rle).encode() for mask in samples.make_masks(image, plan, plan.shards[0])]
    found = []
    for path in sorted(path for path in Path(dataset.uri).rglob("*") if path.is_file()):
        content = path.read_bytes()
        own = annotations_of(path, image.key) if path.suffix == ".tar" else b""
        if data in content or any(outline in own for outline in outlines):
            found.append(path.relative_to(dataset.uri).as_posix())
    return found


def annotations_of(tar: Path, key: str) -> bytes:
    with tarfile.open(tar) as opened:
        files = [opened.extractfile(member) for member in opened if member.name == f"{key}.json"]
        return b"".join(file.read() for file in files if file is not None)


def mask_shards(dataset: Dataset) -> list[Commit]:
    return [commit for plan in dataset.plans() if plan.kind == "masks" for commit in dataset.commits(plan)]


def keys_in(dataset: Dataset) -> tuple[list[str], list[str]]:
    """Keys of the images, and of the images with masks, that readers of whole shards see."""
    images = [image.key for shard in dataset.image_shards() for image, _ in dataset.read_images(shard)]
    return images, [image.key for shard in mask_shards(dataset) for image, _ in dataset.read_masks(shard)]


def test_an_erased_image_is_gone_from_every_file_and_table(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord
) -> None:
    assert len(traces(filled, samples)) == 2
    assert count(filled, wanted) == [1, 3, 0]
    commit = filled.erase([wanted.image_id], WISH)
    assert traces(filled, samples) == []
    assert count(filled, wanted) == [0, 0, 1]
    assert [len(keys) for keys in keys_in(filled)] == [3, 3]
    assert filled.query("SELECT count(*) AS n FROM masks")["n"][0].as_py() == 9
    (row,) = filled.query("SELECT * FROM rejects WHERE reason = 'erased'").to_pylist()
    assert (row["detail"], row["stage"], row["source_sha256"]) == (WISH, "fold", wanted.source_sha256)
    (row,) = filled.query("SELECT * FROM shards WHERE kind = 'erasures'").to_pylist()
    assert (row["plan"], row["record_sha256"]) == (commit.plan_id, commit.record_sha256)
    report = filled.maintenance.verify()
    assert (report.faults, report.erased) == ((), 1)
    assert filled.maintenance.verify(fast=True).faults == ()


def test_the_other_images_of_the_shards_stay_byte_for_byte(filled: Dataset, wanted: ImageRecord) -> None:
    before = {image.key: data for shard in filled.image_shards() for image, data in filled.read_images(shard)}
    sizes = {path: path.stat().st_size for path in Path(filled.uri, "data").rglob("*.*")}
    filled.erase([wanted.image_id], WISH)
    after = {image.key: data for shard in filled.image_shards() for image, data in filled.read_images(shard)}
    assert after == {key: data for key, data in before.items() if key != wanted.key}
    assert {path: path.stat().st_size for path in Path(filled.uri, "data").rglob("*.*")} == sizes
    assert all(filled.is_there(shard) for shard in [*filled.image_shards(), *mask_shards(filled)])
    with tarfile.open(Path(filled.uri, filled.image_shards()[0].tars()[0].key)) as tar:
        assert f"{wanted.key}.jpg" in tar.getnames()


def test_every_generation_and_what_no_record_names_is_overwritten(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord
) -> None:
    plan = mask_shards(filled)[0].made_by
    redo = filled.maintenance.plan_redo(filled.plan(plan), ["00000"])
    samples.write_mask_shard(filled, redo, redo.shards[0])
    images, masks = filled.image_shards()[0].tars()[0].key, mask_shards(filled)[0].tars()[0].key
    for key in (images, masks):  # of losing attempts, and of one that may still win
        for name in (f"g0-{'0' * 32}.tar", f"g7-{'1' * 32}.tar"):
            path = Path(filled.uri, key)
            path.with_name(name).write_bytes(path.read_bytes())
    half = Path(filled.uri, images).with_name(f".gigamask-tmp-{'2' * 32}-g0-{'3' * 32}.tar")
    half.write_bytes(Path(filled.uri, images).read_bytes()[:9000])
    assert len(traces(filled, samples)) == 3 + 4 + 1
    commit = filled.erase([wanted.image_id], WISH)
    assert traces(filled, samples) == []
    assert len(commit.erased) == 3 + 4
    assert not half.exists()
    assert filled.maintenance.verify().faults == ()


def test_places_of_the_other_images_do_not_shift(filled: Dataset, wanted: ImageRecord) -> None:
    shard = filled.image_shards()[0]
    ids = filled.image_ids_in(shard)
    filled.erase([wanted.image_id], WISH)
    assert filled.image_ids_in(shard) == ids
    read = [
        [
            image.image_id
            for image, _ in filled.read_images(ImageRange(shard=shard.address, start=place, stop=place + 1))
        ]
        for place in range(2)
    ]
    assert read == [[] if image_id == wanted.image_id else [image_id] for image_id in ids]


def test_snapshots_from_before_prove_themselves_and_give_no_pixels(filled: Dataset, wanted: ImageRecord) -> None:
    before = filled.snapshot().snapshot_id
    mask_id = filled.masks_of_image(wanted.image_id)["mask_id"][0].as_py()
    filled.erase([wanted.image_id], WISH)
    after = filled.snapshot().snapshot_id
    again = Dataset.open(filled.uri)
    assert count(again, wanted, before) == [1, 3, 0]
    assert count(again, wanted, after) == [0, 0, 1]
    for snapshot in (before, after, None):
        for read in (
            lambda snapshot: again.read_mask(wanted.image_id, mask_id, snapshot=snapshot),
            lambda snapshot: again.masks_of_image(wanted.image_id, snapshot),
        ):
            with pytest.raises(Erased, match=f"image {wanted.key} was erased on 20.*, because: {WISH}"):
                read(snapshot)
        read_keys = [image.key for each in mask_shards(again) for image, _ in again.read_masks(each, snapshot=snapshot)]
        assert len(read_keys) == 3
    assert again.maintenance.verify().faults == ()


def test_a_rebuild_and_compactions_do_not_bring_an_image_back(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.tables.folds._COMPACTION_EVERY", 4)
    filled.erase([wanted.image_id], WISH)
    for first in (100, 200):
        samples.ingest(filled, shards=1, first=first)
        filled.fold()
    assert json.loads(Path(filled.uri, "folds/00000004.json").read_text())["action"] == "compact"
    assert count(filled, wanted) == [0, 0, 1]
    filled.maintenance.rebuild_tables()
    assert count(filled, wanted) == [0, 0, 1]
    assert filled.maintenance.verify().faults == ()


def test_a_rebuild_folds_an_erasure_that_was_not_folded(filled: Dataset, wanted: ImageRecord) -> None:
    erasing.erase(filled.store, [wanted.image_id], WISH)
    filled.maintenance.rebuild_tables()
    assert count(filled, wanted) == [0, 0, 1]
    assert filled.maintenance.verify().faults == ()


def test_a_redo_that_keeps_parts_with_an_erased_image_works(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord
) -> None:
    filled.erase([wanted.image_id], WISH)
    plan = filled.plan(filled.image_shards()[0].made_by)
    redo = filled.maintenance.plan_redo(plan, ["00000"])
    before = filled.previous(redo, redo.shards[0])
    filled.write_images(redo, redo.shards[0], [samples.make_image(50)], inherited=before)
    filled.fold()
    assert count(filled, wanted) == [0, 0, 1]
    assert len(keys_in(filled)[0]) == 4
    assert filled.maintenance.verify().faults == ()


def test_withdrawals_and_erasures_of_the_same_shard_add_up(filled: Dataset, wanted: ImageRecord) -> None:
    first, *_ = filled.query(f"SELECT image_id, mask_id FROM masks WHERE image_id <> {wanted.image_id}").to_pylist()
    filled.erase([wanted.image_id], WISH)
    filled.withdraw([(first["image_id"], first["mask_id"])], "poor")
    assert filled.query("SELECT count(*) AS n FROM masks")["n"][0].as_py() == 8
    assert filled.maintenance.verify().faults == ()
    with pytest.raises(ValueError, match="1 of 1 masks are not in fold"):
        filled.withdraw([(wanted.image_id, 5)], "poor")


def test_damage_to_another_image_of_the_object_is_still_noticed(filled: Dataset, wanted: ImageRecord) -> None:
    commit = filled.erase([wanted.image_id], WISH)
    for each in commit.erased:
        path = Path(filled.uri, each.key)
        whole = path.read_bytes()
        place = next(at for at in (700, 3000, 5500) if not any(a <= at < a + n for a, n in each.ranges) and whole[at])
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        (fault,) = filled.maintenance.verify().faults
        assert (fault.key, "SHA-256" in fault.what) == (each.key, True)
        path.write_bytes(whole)
    assert filled.maintenance.verify().faults == ()


def test_an_object_restored_from_an_old_copy_is_named_and_erased_again(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord
) -> None:
    path = Path(filled.uri, filled.image_shards()[0].tars()[0].key)
    copy = path.read_bytes()
    filled.erase([wanted.image_id], WISH)
    path.write_bytes(copy)
    (fault,) = filled.maintenance.verify().faults
    assert fault.key == path.relative_to(filled.uri).as_posix()
    assert "1 erased images that are not overwritten" in fault.what
    assert wanted.key not in keys_in(filled)[0]
    filled.maintenance.finish_erasures()
    assert traces(filled, samples) == []
    assert filled.maintenance.verify().faults == ()


@pytest.mark.parametrize("ids", [[], [5], [-1], [2**63]])
def test_images_that_the_dataset_does_not_hold_are_one_clear_error(
    filled: Dataset, wanted: ImageRecord, ids: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"erasure: (no image was named|an image has one 63-bit id|1 of 2 images are)"):
        filled.erase([*([wanted.image_id] if ids else []), *ids], WISH)
    assert count(filled, wanted) == [1, 3, 0]
    assert read_erasures(filled.store).images == {}


def test_erasing_again_changes_nothing_and_a_second_reason_is_recorded_too(
    filled: Dataset, wanted: ImageRecord
) -> None:
    first = filled.erase([wanted.image_id], WISH)
    assert filled.erase([wanted.image_id], WISH) == first
    filled.erase([wanted.image_id], "a court's order")
    assert count(filled, wanted) == [0, 0, 2]
    assert filled.maintenance.verify().faults == ()


def test_two_erasures_that_meet_in_one_object_leave_it_sound(
    filled: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are recorded before either overwrites, so neither states the hash that the object comes to have."""
    ids = [samples.make_image(number)[0].image_id for number in (0, 1)]
    finish = erasing.finish
    monkeypatch.setattr(erasing, "finish", lambda store, **_: None)
    known = read_erasures(filled.store)
    monkeypatch.setattr(erasing, "read_erasures", lambda store: known)
    commits = [erasing.erase(filled.store, [image_id], WISH) for image_id in ids]
    assert {each.key for each in commits[0].erased} == {each.key for each in commits[1].erased}
    monkeypatch.setattr(erasing, "read_erasures", read_erasures)
    monkeypatch.setattr(erasing, "finish", finish)
    filled.maintenance.finish_erasures()
    assert [traces(filled, samples, number) for number in (0, 1)] == [[], []]
    assert filled.maintenance.verify().faults == ()
    assert len(keys_in(filled)[0]) == 2


class Died(BaseException):
    """Nothing catches it: as good as a kill between two steps."""


class DyingStore(LocalStore):
    """A store whose process dies before its n-th change."""

    left = 10**9

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Died

    def put_if_absent(self, key: str, data: bytes) -> None:
        self._count()
        super().put_if_absent(key, data)

    def overwrite_with_zeros(self, key: str, ranges: object) -> None:
        self._count()
        super().overwrite_with_zeros(key, ranges)


@pytest.mark.parametrize("changes", range(8))
@pytest.mark.parametrize("how", ["the same call", "a fold", "finishing"])
def test_an_erasure_that_died_before_any_change_is_completed(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord, changes: int, how: str
) -> None:
    store = DyingStore(Path(filled.uri))
    store.left = changes
    dying = Dataset(store)
    try:
        dying.erase([wanted.image_id], WISH)
    except Died:
        pass
    else:
        assert changes > 5, "an erasure of two objects makes more changes than that"
    recorded = bool(read_erasures(filled.store).images)
    assert recorded == (changes > 1)
    for shard in [*filled.image_shards(), *mask_shards(filled)]:
        assert filled.is_there(shard)
    assert (wanted.key in keys_in(filled)[0]) is not recorded
    complete: dict[str, Callable[[], object]] = {
        "the same call": lambda: filled.erase([wanted.image_id], WISH),
        "a fold": filled.fold,
        "finishing": filled.maintenance.finish_erasures,
    }
    complete[how]()
    if recorded or how == "the same call":
        assert traces(filled, samples) == []
        assert count(filled, wanted) == [0, 0, 1]
        assert filled.maintenance.verify().faults == ()


def test_an_object_torn_by_a_kill_within_its_zeros_is_still_read(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tear(store: LocalStore, key: str, ranges: list[tuple[int, int]]) -> None:
        path = Path(store.uri, key)
        content, (start, nbytes) = path.read_bytes(), ranges[0]
        path.write_bytes(content[:start] + bytes(nbytes // 2) + content[start + nbytes // 2 :])
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "overwrite_with_zeros", tear)
        with pytest.raises(Died):
            filled.erase([wanted.image_id], WISH)
    assert [len(keys) for keys in keys_in(filled)] == [3, 3]
    assert [fault.what for fault in filled.maintenance.verify().faults] == [
        f"holds 1 erased images that are not overwritten, the first is {wanted.key}"
    ] * 2
    filled.fold()
    assert traces(filled, samples) == []
    assert filled.maintenance.verify().faults == ()


def test_masks_that_a_frozen_worker_commits_after_the_erasure_are_erased_by_the_fold(
    dataset: Dataset, samples: SimpleNamespace, wanted: ImageRecord
) -> None:
    samples.ingest(dataset)
    plan = samples.plan_masks(dataset)
    images = [image for image, _ in dataset.read_images(image_inputs(plan.shards[0].inputs)[0])]
    masked = [(image, samples.make_masks(image, plan, plan.shards[0])) for image in images]
    dataset.erase([wanted.image_id], WISH)
    dataset.write_masks(plan, plan.shards[0], masked)  # it had read the image before
    assert len(traces(dataset, samples)) == 1
    assert "not overwritten" in dataset.maintenance.verify().faults[0].what
    dataset.fold()
    assert traces(dataset, samples) == []
    assert count(dataset, wanted) == [0, 0, 1]
    assert dataset.query("SELECT count(*) AS n FROM masks")["n"][0].as_py() == 3
    assert dataset.maintenance.verify().faults == ()
    dataset.maintenance.rebuild_tables()
    assert count(dataset, wanted) == [0, 0, 1]


def test_an_image_that_a_frozen_ingest_commits_again_is_erased_by_the_fold(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord
) -> None:
    filled.erase([wanted.image_id], WISH)
    shard = PlannedShard.from_inputs(photo_key("elsewhere"))
    plan = filled.new_plan(PlanKind.IMAGES, [shard], {})
    filled.write_images(plan, shard, [samples.make_image(1), samples.make_image(77)])
    filled.fold()
    assert traces(filled, samples) == []
    assert count(filled, wanted) == [0, 0, 1]
    assert len(keys_in(filled)[0]) == 4
    assert filled.maintenance.verify().faults == ()


def test_an_object_written_between_the_search_and_the_record_is_erased_too(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = samples.plan_masks(filled, {"model": "another"})
    images = [image for image, _ in filled.read_images(image_inputs(plan.shards[0].inputs)[0])]
    masked = [(image, samples.make_masks(image, plan, plan.shards[0])) for image in images]
    find = erasing.find_images

    def find_then_write(*args: object, **kwargs: object) -> erasing.FoundImages:
        found = find(*args, **kwargs)
        if "but" not in kwargs:
            filled.write_masks(plan, plan.shards[0], masked)
            filled.fold()
        return found

    monkeypatch.setattr(erasing, "find_images", find_then_write)
    commit = filled.erase([wanted.image_id], WISH)
    assert (commit.generation, len(commit.erased)) == (1, 3)
    assert traces(filled, samples) == []
    assert count(filled, wanted) == [0, 0, 1]
    assert filled.maintenance.verify().faults == ()


def test_who_loses_the_record_searches_again_for_what_the_winner_did_not_see(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The winner searched before an object was written, and died after its record; the loser saw the object."""
    plan = samples.plan_masks(filled, {"model": "another"})
    images = [image for image, _ in filled.read_images(image_inputs(plan.shards[0].inputs)[0])]
    masked = [(image, samples.make_masks(image, plan, plan.shards[0])) for image in images]
    early = erasing.find_images(filled.store, [wanted.image_id])
    filled.write_masks(plan, plan.shards[0], masked)
    filled.fold()
    find = erasing.find_images

    def win_first(store: LocalStore, image_ids: list[int], **kwargs: object) -> object:
        found = find(store, image_ids, **kwargs)
        if not read_erasures(store).images:
            with monkeypatch.context() as patched:
                patched.setattr(erasing, "find_images", lambda *args, **_: early)
                patched.setattr(erasing, "finish", lambda store, **_: None)
                erasing.erase(store, [wanted.image_id], WISH)
        return found

    monkeypatch.setattr(erasing, "find_images", win_first)
    filled.erase([wanted.image_id], WISH)
    assert traces(filled, samples) == []
    assert filled.maintenance.verify().faults == ()


def test_an_unnamed_object_that_comes_later_is_named_by_verify(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord
) -> None:
    """A frozen worker wrote its tar after the erasure, and died before its record."""
    plan = filled.new_plan(PlanKind.IMAGES, [PlannedShard.from_inputs(photo_key("late"))], {})
    filled.erase([wanted.image_id], WISH)
    contents.put_images(begin_attempt(filled.store, plan, plan.shards[0]), [samples.make_image(1)])
    (fault,) = filled.maintenance.verify().faults
    assert "not overwritten" in fault.what
    filled.maintenance.finish_erasures()
    assert traces(filled, samples) == []
    assert filled.maintenance.verify().faults == ()


def test_a_damaged_object_is_overwritten_but_not_blessed(
    filled: Dataset, samples: SimpleNamespace, wanted: ImageRecord
) -> None:
    path = Path(filled.uri, filled.image_shards()[0].tars()[0].key)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\1")
    filled.erase([wanted.image_id], WISH)
    assert traces(filled, samples) == []
    assert [fault.key for fault in filled.maintenance.verify().faults] == [path.relative_to(filled.uri).as_posix()]
    assert count(filled, wanted) == [0, 0, 1]


def test_an_erasure_while_a_shard_is_read_is_told_from_damage(filled: Dataset, wanted: ImageRecord) -> None:
    shard = filled.image_shards()[0]
    last = filled.image_ids_in(shard)[-1]
    images = filled.read_images(shard)
    next(images)
    filled.erase([last], WISH)
    with pytest.raises(StoreError, match="images of it were erased meanwhile; read it again") as raised:
        list(images)
    assert not isinstance(raised.value, Corrupt)


def test_an_erasure_that_was_given_up_erases_nothing(filled: Dataset, wanted: ImageRecord) -> None:
    store = DyingStore(Path(filled.uri))
    store.left = 1
    with pytest.raises(Died):
        Dataset(store).erase([wanted.image_id], WISH)
    (plan,) = [plan for plan in filled.plans() if plan.kind == "erasures"]
    filled.maintenance.close(plan)
    filled.fold()
    assert count(filled, wanted) == [1, 3, 0]
    with pytest.raises(ValueError, match="was given up"):
        filled.erase([wanted.image_id], WISH)
    filled.erase([wanted.image_id], "another reason")
    assert filled.maintenance.verify().faults == ()


def test_cleaning_beside_an_erasure_leaves_it_sound(filled: Dataset, wanted: ImageRecord) -> None:
    filled.erase([wanted.image_id], WISH)
    assert filled.maintenance.clean(delete=True).garbage == ()
    assert filled.maintenance.verify().faults == ()


def test_a_torn_record_of_an_erasure_is_named(filled: Dataset, wanted: ImageRecord) -> None:
    commit = filled.erase([wanted.image_id], WISH)
    filled.store.put(commit.address.key, b"{")
    assert commit.address.key in {fault.key for fault in filled.maintenance.verify().faults}


def test_an_erasure_on_s3(s3_uri: str, samples: SimpleNamespace, wanted: ImageRecord) -> None:
    dataset = Dataset.create(s3_uri)
    samples.ingest(dataset)
    samples.mask(dataset)
    before = dataset.snapshot().snapshot_id
    photo = samples.make_image(1)[1]
    assert any(photo in dataset.store.get(key) for key in dataset.store.list("data/"))
    dataset.erase([wanted.image_id], WISH)
    assert not any(photo in dataset.store.get(key) for key in dataset.store.list(""))
    assert count(dataset, wanted) == [0, 0, 1]
    assert count(dataset, wanted, before) == [1, 3, 0]
    assert [len(keys) for keys in keys_in(dataset)] == [3, 3]
    assert dataset.maintenance.verify().faults == ()


def test_racing_erasures_on_s3_lose_no_zeros(s3_uri: str) -> None:
    """Each reads the whole object and puts it back; a put over a newer version is refused."""
    store = Dataset.create(s3_uri).store
    store.put("data/x/y/z.tar", b"\1" * 80_000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.overwrite_with_zeros("data/x/y/z.tar", [(n * 10_000, 10_000)]), range(8)))
    assert store.get("data/x/y/z.tar") == bytes(80_000)


def test_zeros_are_written_within_an_object_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("data/x.tar", b"\1" * 10)
    store.overwrite_with_zeros("data/x.tar", [(2, 3), (8, 100), (50, 5)])
    assert store.get("data/x.tar") == b"\1\1\0\0\0\1\1\1\0\0"


def test_ranges_are_sorted_and_each_is_kept_once() -> None:
    assert merged([(30, 5), (10, 5), (10, 5), (11, 2), (40, 0)]) == ((10, 5), (30, 5))
    digest = ZeroedDigest(merged([(1, 2), (5, 1)]))
    for piece in (b"ab", b"cde", b"fg"):
        digest.update(piece)
    plain = ZeroedDigest(())
    plain.update(b"a\0\0de\0g")
    assert digest.hexdigest() == plain.hexdigest()


def test_the_record_of_another_kind_has_no_field_of_erasures(filled: Dataset, wanted: ImageRecord) -> None:
    commit = filled.erase([wanted.image_id], WISH)
    fields = [json.loads(filled.store.get(key)) for key in filled.store.list("commits/")]
    assert [each["kind"] for each in fields if "erased" in each] == ["erasures"]
    assert replace(commit, erased=()) != commit


@pytest.mark.parametrize("others", [0, 60_000])
def test_the_rows_of_a_few_or_of_very_many_images_are_deleted(tmp_path: Path, others: int) -> None:
    dataset = small_dataset(tmp_path / "masks")
    dataset.fold()
    ids = sorted(row["image_id"] for row in dataset.query("SELECT image_id FROM images").to_pylist())
    gone = delta.deleting_images([*ids[:2], *range(others)])
    version = delta.change_unshared(dataset.store, delta.FIRST_FOLDER, "images", gone)
    table = delta.open_table(dataset.store, delta.FIRST_FOLDER, "images", version)
    left = pa.table(table.to_pyarrow_table(columns=["image_id"]))["image_id"].to_pylist()
    assert sorted(left) == ids[2:] != []
