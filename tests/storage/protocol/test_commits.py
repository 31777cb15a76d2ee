"""The commit protocol: workers that die, race and thaw lose nothing and double nothing."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from storage.dataset import Dataset
from storage.errors import Conflict, Corrupt, NotFound, StoreError
from storage.objects.local import LocalStore
from storage.protocol import commits
from storage.protocol.commits import begin_attempt, commit_from_json, commit_to_json
from storage.protocol.inputs import ShardAddress
from storage.protocol.plans import PlannedShard, make_plan, plan_to_json, put_plan
from storage.tables.contents import put_images
from tests.image_records import photo_key
from tests.paths import ROOT

SHARD = PlannedShard(name="00000", inputs=(photo_key("photos"),))

# Dies by SIGKILL just before its n-th step that changes the disk, for every n, in a process of its own each time.
DYING_WRITER = """
import os, pickle, signal, sys
from storage.dataset import Dataset
uri, plan_id, samples = pickle.load(open(sys.argv[1], "rb"))
steps = 0
def dying_at(n, real):
    def call(*args, **kwargs):
        global steps
        if steps == n:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return real(*args, **kwargs)
    return call
n = 0
while True:
    child = os.fork()
    if not child:
        for name in ("fsync", "replace", "link", "unlink"):
            setattr(os, name, dying_at(n, getattr(os, name)))
        dataset = Dataset.open(uri)
        plan = dataset.plan(plan_id)
        dataset.write_images(plan, plan.shards[n], samples)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(n, os.WTERMSIG(status), flush=True)
    if not status:
        break
    n += 1
"""
FROZEN_WRITER = """
import os, pickle, signal, sys
from storage.protocol.commits import begin_attempt
from storage.tables.contents import put_images
from storage.dataset import Dataset
uri, plan_id, samples = pickle.load(open(sys.argv[1], "rb"))
dataset = Dataset.open(uri)
plan = dataset.plan(plan_id)
attempt = begin_attempt(dataset.store, plan, plan.shards[0])
put_images(attempt, samples)
print("frozen", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
print("won" if attempt.commit().attempt_id == attempt.attempt_id else "lost", flush=True)
"""
SMALL_FILES_WRITER = """
import pickle, resource, sys
from storage.dataset import Dataset
from storage.errors import StoreError
uri, plan_id, samples = pickle.load(open(sys.argv[1], "rb"))
dataset = Dataset.open(uri)
plan = dataset.plan(plan_id)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    dataset.write_images(plan, plan.shards[0], samples)
except StoreError as error:
    print(error)
"""


def start(script: str, tmp_path: Path, *job: object) -> subprocess.Popen[str]:
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    command = [sys.executable, "-c", script, str(tmp_path / "job")]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})


def data_files(dataset: Dataset) -> list[Path]:
    return sorted(path for path in (Path(dataset.uri) / "data").rglob("*") if path.is_file())


def test_the_same_command_finds_its_plan_again(dataset: Dataset) -> None:
    first = dataset.new_plan("images", [SHARD], {"side_px": 1500, "more": [1, 2]})
    again = dataset.new_plan("images", [SHARD], {"more": [1, 2], "side_px": 1500})
    assert again == first
    other = dataset.new_plan("images", [SHARD], {"side_px": 1024, "more": [1, 2]})
    assert other.plan_id != first.plan_id
    assert dataset.plans() == [first, other]
    assert dataset.plan(first.plan_id).shard("00000") == SHARD


@pytest.mark.parametrize(
    ("kind", "shards", "settings", "message"),
    [
        ("pictures", [SHARD], {}, "expected one of images, masks"),
        ("images", [PlannedShard(name="a/b")], {}, "letters, digits"),
        ("images", [PlannedShard(name="a.b")], {}, "letters, digits"),
        ("images", [SHARD, SHARD], {}, "must differ"),
        ("images", [SHARD], {"side": float("nan")}, "JSON"),
        ("images", [SHARD], {"side": {1, 2}}, "only JSON values"),
    ],
)
def test_a_plan_that_could_not_be_kept_is_refused(
    dataset: Dataset, kind: str, shards: list[PlannedShard], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataset.new_plan(kind, shards, settings)
    assert dataset.plans() == []


def test_a_plan_whose_file_was_changed_is_corrupt(dataset: Dataset) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    key = f"plans/{plan.plan_id}.json"
    dataset.store.put(key, plan_to_json(replace(plan, settings={"side_px": 1})))
    with pytest.raises(Corrupt, match="its content is that of plan images-"):
        Dataset.open(dataset.uri).plan(plan.plan_id)


def test_a_record_survives_its_json(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = samples.ingest(dataset, shards=1)
    (record,) = dataset.commits(plan)
    assert commit_from_json(commit_to_json(record), where="here") == record
    assert record.rejects == (samples.make_reject(0),)
    assert (record.images, record.masks, record.stats) == (2, 0, {"read": 3})
    assert record.nbytes == sum(path.stat().st_size for path in data_files(dataset))
    assert dataset.commit_of(record.address) == record


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b'{"format":1,"plan_id":', Corrupt, "damaged"),
        (b"[]", Corrupt, "damaged"),
        (b'{"format":1}', Corrupt, "is a required property"),
        (b'{"format":4}', StoreError, "format 4, this version reads 1 to 3; use a newer gigamask"),
    ],
)
def test_a_record_that_cannot_be_read_says_so(
    dataset: Dataset, data: bytes, error: type[Exception], message: str
) -> None:
    dataset.store.put("commits/p/s.g0.json", data)
    with pytest.raises(error, match=message):
        dataset.commit_of(ShardAddress(plan_id="p", shard="s"))


def test_a_finished_shard_is_not_planned_again(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = samples.ingest(dataset, shards=3)
    before = data_files(dataset)
    assert dataset.missing(plan) == []
    assert samples.ingest(dataset, shards=3) == plan
    assert data_files(dataset) == before


@pytest.mark.slow
def test_a_writer_killed_at_any_step_leaves_nothing_torn_and_the_rerun_completes(
    dataset: Dataset, samples: SimpleNamespace, tmp_path: Path
) -> None:
    shards = [PlannedShard(name=f"{number:05d}") for number in range(60)]
    plan = dataset.new_plan("images", shards, {})
    photos = [samples.make_image(number) for number in range(2)]
    writer = start(DYING_WRITER, tmp_path, dataset.uri, plan.plan_id, photos)
    lines = [line.split() for line in writer.communicate(timeout=120)[0].splitlines()]
    assert [signal_number for _, signal_number in lines] == ["9"] * (len(lines) - 1) + ["0"]
    assert len(lines) > 10  # steps: each of tar, rows and record is synced, named, its folder synced
    for commit in dataset.commits(plan):
        assert list(dataset.read_images(commit)) == sorted(photos, key=lambda photo: photo[0].key)
    assert dataset.maintenance.verify().faults == ()
    for shard in dataset.missing(plan)[: len(lines)]:
        dataset.write_images(plan, shard, photos)
    done = {commit.shard for commit in dataset.commits(plan)}
    assert {shard.name for shard in shards[: len(lines)]} <= done
    assert dataset.maintenance.verify().faults == ()


def test_of_racing_workers_one_wins_and_nobody_is_doubled(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    photos = [samples.make_image(number) for number in range(3)]
    barrier, records = threading.Barrier(8), []

    def work() -> None:
        attempt = begin_attempt(dataset.store, plan, SHARD)
        put_images(attempt, photos)
        barrier.wait()
        records.append((attempt.attempt_id, attempt.commit()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [record for attempt_id, record in records if record.attempt_id == attempt_id]
    assert len(records) == 8
    assert len(winners) == 1
    assert all(record == winners[0] for _, record in records)
    assert {path.stem for path in data_files(dataset)} == {winners[0].attempt_id}
    dataset.fold()
    assert dataset.query("SELECT count(*) AS n FROM images").to_pylist() == [{"n": 3}]


def test_a_worker_frozen_before_its_commit_and_thawed_after_its_replacement_loses(
    dataset: Dataset, samples: SimpleNamespace, tmp_path: Path
) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    photos = [samples.make_image(number) for number in range(3)]
    frozen = start(FROZEN_WRITER, tmp_path, dataset.uri, plan.plan_id, photos)
    assert frozen.stdout.readline() == "frozen\n"
    winner = dataset.write_images(plan, SHARD, photos)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.communicate(timeout=60)[0] == "lost\n"
    assert dataset.commits(plan) == [winner]
    assert {path.stem for path in data_files(dataset)} == {winner.attempt_id}
    assert dataset.maintenance.verify().faults == ()


class LosesReplies(LocalStore):
    """Puts the record, then loses the reply: what a network does."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        super().put_if_absent(key, data)
        raise StoreError("connection reset")


class LosesRequests(LocalStore):
    """Loses the request, so that nothing is put."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        raise StoreError("connection reset")


def test_a_lost_reply_after_success_is_a_win(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    attempt = begin_attempt(LosesReplies(Path(dataset.uri)), plan, SHARD)
    put_images(attempt, [samples.make_image(1)])
    assert attempt.commit().attempt_id == attempt.attempt_id
    assert len(data_files(dataset)) == 2


def test_a_put_nobody_knows_about_raises_and_keeps_the_objects(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    attempt = begin_attempt(LosesRequests(Path(dataset.uri)), plan, SHARD)
    put_images(attempt, [samples.make_image(1)])
    with pytest.raises(StoreError, match="connection reset"):
        attempt.commit()
    assert len(data_files(dataset)) == 2  # the put may still land
    assert dataset.missing(plan) == [SHARD]


class WritesWrongBytes(LocalStore):
    """A disk that lies: an object comes back with a flipped bit."""

    def open(self, key: str) -> BinaryIO:
        path = self.root / key
        if path.suffix == ".tar":
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
        return super().open(key)


def test_bytes_that_come_back_wrong_are_never_committed(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    attempt = begin_attempt(WritesWrongBytes(Path(dataset.uri)), plan, SHARD)
    with pytest.raises(Corrupt, match="try again"):
        put_images(attempt, [samples.make_image(1)])
    with pytest.raises(NotFound):
        commits.read_commit(dataset.store, ShardAddress(plan_id=plan.plan_id, shard="00000"))


def test_a_file_size_limit_leaves_no_torn_file_and_one_clear_error(
    dataset: Dataset, samples: SimpleNamespace, tmp_path: Path
) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    photos = [samples.make_image(number) for number in range(20)]
    writer = start(SMALL_FILES_WRITER, tmp_path, dataset.uri, plan.plan_id, photos)
    message = writer.communicate(timeout=60)[0]
    assert message.count("\n") == 1
    assert "no space left" in message
    assert data_files(dataset) == []
    dataset.write_images(plan, SHARD, photos)
    assert dataset.maintenance.verify().faults == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if not done or done.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_with_one_clear_error_and_the_rerun_completes(
    small_disk: Path, samples: SimpleNamespace
) -> None:
    dataset = Dataset.create(small_disk / "dataset")

    def fill_up() -> None:
        for first in range(0, 40000, 100):
            samples.ingest(dataset, shards=5, images=20, first=first)

    with pytest.raises(StoreError, match=r"no space left .* run the same command again"):
        fill_up()
    written = [len(dataset.commits(plan)) for plan in dataset.plans()]
    assert list(small_disk.rglob(".gigamask-tmp-*")) == []
    assert [fault for fault in dataset.maintenance.verify().faults if not fault.key.startswith("tables/")] == []
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    for number, _ in enumerate(written):
        samples.ingest(dataset, shards=5, images=20, first=100 * number)
    dataset.fold()
    assert [status.missing for status in dataset.status()] == [()] * len(written)
    counted = dataset.query("SELECT count(*) AS n, count(DISTINCT image_id) AS distinct FROM images").to_pylist()
    assert counted[0]["n"] == 100 * len(written)
    assert dataset.maintenance.verify().faults == ()


def test_two_writers_of_one_plan_freeze_one_plan(dataset: Dataset) -> None:
    ours, theirs = make_plan("images", [SHARD], {}), make_plan("images", [SHARD], {})
    assert put_plan(dataset.store, ours) == put_plan(dataset.store, theirs)
    with pytest.raises(Conflict):
        dataset.store.put_if_absent(f"plans/{ours.plan_id}.json", b"")
