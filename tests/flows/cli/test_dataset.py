"""The keeper's commands, each in a process of its own on a small real dataset."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from storage import rle
from storage.dataset import Dataset
from storage.protocol.commits import begin_attempt
from storage.protocol.inputs import ImageRange
from storage.protocol.plans import PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Reject, mask_id_of
from storage.verification.verify import VerifyProgress
from tests.image_records import image_record, photo_key

Gigamask = Callable[..., subprocess.CompletedProcess[str]]
SIDE = 32


@pytest.fixture
def made(tmp_path: Path) -> SimpleNamespace:
    """A folder `data` with four images; the first mask shard lacks one of its images, a reject."""
    dataset = Dataset.create(tmp_path / "data")
    images = dataset.new_plan("images", [PlannedShard(name="000000", inputs=(photo_key("photos"),))], {})
    commit = dataset.write_images(images, images.shards[0], [photograph(number) for number in range(4)])
    shards = [
        PlannedShard(name=f"{n:06d}", inputs=(ImageRange(shard=commit.address, start=2 * n, stop=2 * n + 2),))
        for n in range(2)
    ]
    masks = dataset.new_plan("masks", shards, {"model_id": "seed-0123"})
    stored = [image for image, _ in dataset.read_images(commit)]
    rejects = [Reject(source=stored[1].source, source_sha256="", reason="failed", detail="bad luck", stage="masks")]
    for shard, shown, failed in ((shards[0], stored[:1], rejects), (shards[1], stored[2:], [])):
        dataset.write_masks(masks, shard, [(image, two_masks(image, masks.plan_id, shard)) for image in shown], failed)
    dataset.fold()
    return SimpleNamespace(dataset=dataset, images=images, masks=masks, folder=tmp_path)


def photograph(number: int) -> tuple[ImageRecord, bytes]:
    data = cv2.imencode(".png", np.full((SIDE, SIDE, 3), number, np.uint8))[1].tobytes()
    return image_record(data, (SIDE, SIDE), f"{number}.png", "png"), data


def two_masks(image: ImageRecord, plan_id: str, shard: PlannedShard) -> list[MaskRecord]:
    """Of 16 and 64 px, stable to 0.5 and 0.75."""
    masks = []
    for ordinal, side in enumerate((4, 8)):
        mask_HW = np.zeros((SIDE, SIDE), np.bool_)
        mask_HW[:side, :side] = True
        runs = rle.encode(mask_HW)
        masks.append(
            MaskRecord(
                mask_id=mask_id_of(plan_id, shard.name, 0, image.image_id, ordinal),
                image_id=image.image_id,
                rle=runs,
                box_xyxy=rle.box_xyxy(runs),
                area_px=rle.area(runs),
                predicted_iou=0.5,
                stability_score=0.5 + ordinal / 4,
                point_xy=(1.0, 2.0),
                crop_xyxy=(0, 0, SIDE, SIDE),
                provenance=Provenance(stage="fully_automatic", model_id="seed-0123", plan_id=plan_id),
            )
        )
    return masks


def masks_left(made: SimpleNamespace) -> int:
    (row,) = made.dataset.query("SELECT count(*) AS n FROM masks").to_pylist()
    return row["n"]


def assert_one_clear_error(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in " ".join(done.stderr.replace("│", " ").split())


def test_gc_says_what_it_would_remove_and_removes_it_when_told(gigamask: Gigamask, made: SimpleNamespace) -> None:
    beaten = begin_attempt(made.dataset.store, made.masks, made.masks.shards[0])
    beaten.put_part("tar", "tar", lambda file: file.write(bytes(1000)))
    first = json.loads(gigamask("gc", "--dataset", "data", "--json", cwd=made.folder).stdout)
    counts = {"garbage": 1, "table_files": 0, "nbytes": 1000, "unfinished": 0, "kept": 0, "closed": []}
    assert first == {"deleted": False, **counts}
    assert (made.folder / "data" / beaten.key("tar")).exists()
    second = json.loads(gigamask("gc", "--dataset", "data", "--delete", "--json", cwd=made.folder).stdout)
    assert second == {**first, "deleted": True}
    assert not (made.folder / "data" / beaten.key("tar")).exists()
    assert made.dataset.maintenance.verify().faults == ()


def test_gc_closes_the_missing_shards_of_a_plan(gigamask: Gigamask, made: SimpleNamespace) -> None:
    plan = made.dataset.new_plan("masks", made.masks.shards, {"model_id": "never-run"})
    command = ["gc", "--dataset", "data", "--json", "--close", plan.plan_id]
    dry = json.loads(gigamask(*command, cwd=made.folder).stdout)
    assert dry["closed"] == ["000000", "000001"]
    assert len(made.dataset.missing(plan)) == 2
    assert json.loads(gigamask(*command, "--delete", cwd=made.folder).stdout)["closed"] == ["000000", "000001"]
    assert made.dataset.missing(plan) == []


def test_verify_continues_an_interrupted_check_unless_told_to_start_again(
    gigamask: Gigamask, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: VerifyProgress) -> None:
        if progress.records == 2:
            raise KeyboardInterrupt

    monkeypatch.setenv("HOME", str(made.folder / "home"))
    command = ["verify", "--dataset", "data", "--json"]
    for more in ([], ["--again"]):
        data = Dataset.open(made.folder / "data")
        with pytest.raises(KeyboardInterrupt), data.maintenance.journal() as journal:
            data.maintenance.verify(on_progress=stop, journal=journal)
        done = gigamask(*command, *more, cwd=made.folder)
        assert ("continues the check begun at" in done.stderr) is not bool(more)
        report = json.loads(done.stdout)
        assert (report["records"], report["masks"], report["faults"], report["unproven"]) == (3, 6, [], [])
        assert list((made.folder / "home").rglob("*.txt")) == []


def test_redo_plans_the_shards_with_rejects(gigamask: Gigamask, made: SimpleNamespace) -> None:
    done = gigamask("redo", "--dataset", "data", "--json", cwd=made.folder)
    (row,) = json.loads(done.stdout)
    assert (row["redoes"], row["shards"], row["rejects"]) == (made.masks.plan_id, 1, 1)
    assert "gigamask masks --dataset data" in done.stderr
    plan = made.dataset.plan(row["plan"])
    assert [(shard.name, shard.generation) for shard in plan.shards] == [("000000", 1)]
    assert json.loads(gigamask("redo", "--dataset", "data", "--json", cwd=made.folder).stdout) == [row]


def test_redo_plans_named_shards_whether_they_have_rejects_or_not(gigamask: Gigamask, made: SimpleNamespace) -> None:
    command = ["redo", "--dataset", "data", "--json", "--plan", made.masks.plan_id, "--shard", "000001"]
    (row,) = json.loads(gigamask(*command, cwd=made.folder).stdout)
    assert (row["shards"], row["rejects"]) == (1, 0)


def test_masks_are_withdrawn_by_condition(gigamask: Gigamask, made: SimpleNamespace) -> None:
    command = ["withdraw", "--dataset", "data", "--json", "--where", "stability_score < 0.6", "--reason", "unstable"]
    dry = json.loads(gigamask(*command, "--dry-run", cwd=made.folder).stdout)
    assert dry == {"masks": 3, "images": 3, "reason": "unstable", "plan": ""}
    assert masks_left(made) == 6
    done = json.loads(gigamask(*command, cwd=made.folder).stdout)
    assert (done["masks"], done["plan"].partition("-")[0]) == (3, "withdrawals")
    assert masks_left(made) == 3
    assert made.dataset.maintenance.verify().faults == ()


def test_masks_are_withdrawn_by_a_list_that_a_query_wrote(gigamask: Gigamask, made: SimpleNamespace) -> None:
    sql = "SELECT image_id, mask_id FROM masks WHERE area_px = 64 LIMIT 2"
    gigamask("query", "--dataset", "data", "--format", "csv", "--output", "bad.csv", sql, cwd=made.folder)
    done = gigamask("withdraw", "--dataset", "data", "--ids", "bad.csv", "--reason", "seen", "--json", cwd=made.folder)
    assert json.loads(done.stdout)["masks"] == 2
    assert masks_left(made) == 4


def test_images_are_erased_by_their_keys(gigamask: Gigamask, made: SimpleNamespace) -> None:
    image, data = photograph(3)
    command = ["erase", "--dataset", "data", "--json", "--image", image.key, "--reason", "a person's wish"]
    dry = json.loads(gigamask(*command, "--dry-run", cwd=made.folder).stdout)
    assert (dry["images"], len(dry["objects"]), dry["unreadable"], dry["plan"]) == (1, 2, [], "")
    assert masks_left(made) == 6
    done = json.loads(gigamask(*command, cwd=made.folder).stdout)
    assert (done["objects"], done["nbytes"], done["plan"].partition("-")[0]) == (
        dry["objects"],
        dry["nbytes"],
        "erasures",
    )
    assert masks_left(made) == 4
    assert made.dataset.maintenance.verify().faults == ()
    for key in done["objects"]:
        assert data not in made.dataset.store.get(key)
    again = json.loads(gigamask("erase", "--dataset", "data", "--json", "--finish", cwd=made.folder).stdout)
    assert (again["images"], again["objects"]) == (1, done["objects"])


def test_rebuild_makes_damaged_tables_anew(gigamask: Gigamask, made: SimpleNamespace) -> None:
    for file in (made.folder / "data" / "tables" / "masks").glob("*.parquet"):
        file.write_bytes(b"damaged")
    done = gigamask("rebuild", "--dataset", "data", "--json", cwd=made.folder)
    assert json.loads(done.stdout)["records"] == 3
    assert masks_left(made) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gc", "--close", "masks-none"], 1, ["no plan 'masks-none'", "images-"]),
        (["redo", "--plan", "../x"], 1, ["no plan '../x'"]),
        (["redo", "--shard", "000000"], 2, ["give --plan"]),
        (["withdraw", "--reason", "x"], 2, ["either a condition (--where) or a list (--ids)"]),
        (["withdraw", "--reason", " ", "--where", "true"], 2, ["--reason"]),
        (["withdraw", "--where", "true"], 2, ["--reason"]),
        (["withdraw", "--reason", "x", "--where", "size < 3"], 1, ["No field named size"]),
        (["withdraw", "--reason", "x", "--where", "area_px < 0"], 1, ["no mask fits"]),
        (["withdraw", "--reason", "x", "--ids", "none.csv"], 1, ["none.csv"]),
        (["withdraw", "--reason", "x", "--ids", "odd.csv"], 1, ["odd.csv", "expected image_id and mask_id"]),
        (["withdraw", "--reason", "x", "--ids", "torn.csv"], 1, ["torn.csv: line 2"]),
        (["withdraw", "--reason", "x", "--ids", "other.csv"], 1, ["1 of 1 masks are not in"]),
        (["erase", "--reason", "x"], 2, ["--image / --reason"]),
        (["erase", "--image", "0" * 16, "--reason", " "], 2, ["--image / --reason"]),
        (["erase", "--image", "12", "--reason", "x"], 2, ["got '12', expected 16 hex digits"]),
        (["erase", "--image", "0" * 16, "--reason", "x"], 1, ["1 of 1 images are not in this dataset"]),
        (["erase", "--image", "0" * 16, "--reason", "x", "--dry-run"], 1, ["nothing was erased"]),
        (["erase", "--finish", "--reason", "x"], 2, ["--finish"]),
        (["rebuild", "--dataset", "absent"], 1, ["absent", "no dataset there"]),
    ],
)
def test_wrong_use_is_one_clear_error(
    gigamask: Gigamask, made: SimpleNamespace, arguments: list[str], code: int, words: list[str]
) -> None:
    (made.folder / "odd.csv").write_text("image,mask\n1,2\n")
    (made.folder / "torn.csv").write_text("image_id,mask_id\n1,\n")
    (made.folder / "other.csv").write_text("image_id,mask_id\n1,2\n")
    where = [] if "--dataset" in arguments else ["--dataset", "data"]
    assert_one_clear_error(gigamask(*arguments, *where, cwd=made.folder), code, *words)
    assert masks_left(made) == 6
