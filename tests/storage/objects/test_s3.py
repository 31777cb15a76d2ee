"""The dataset on a real S3 server: the same protocol, and what only a network does to it."""

import os
import random
import threading
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from storage.dataset import Dataset
from storage.errors import Corrupt, NotFound, StoreError
from storage.objects import s3
from storage.objects.stores import open_store, sha256_of
from storage.protocol.commits import begin_attempt
from storage.protocol.plans import PlannedShard
from storage.tables.contents import put_images
from tests.failing_proxy import BREAKS_OFF, LOSES, REFUSES, proxy_to, serving

SHARD = PlannedShard(name="00000")
COUNTS = "SELECT (SELECT count(*) FROM images) AS images, (SELECT count(*) FROM masks) AS masks"


@pytest.fixture
def dataset(s3_uri: str) -> Dataset:
    return Dataset.create(s3_uri)


def test_a_dataset_on_s3_answers_like_one_on_disk(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    plan = samples.mask(dataset)
    dataset = Dataset.open(dataset.uri)
    snapshot = dataset.snapshot()
    assert dataset.query(COUNTS, snapshot.snapshot_id).to_pylist() == [{"images": 4, "masks": 12}]
    for shard, commit in zip(plan.shards, dataset.commits(plan), strict=True):
        for image, masks in dataset.read_masks(commit):
            assert repr(masks) == repr(samples.make_masks(image, plan, shard))
            assert repr(dataset.read_mask(image.image_id, masks[0].mask_id)) == repr(masks[0])
    redo = dataset.maintenance.plan_redo(plan, ["00000"])
    samples.write_mask_shard(dataset, redo, redo.shards[0], count=4)
    dataset.fold()
    image, masks = next(dataset.read_masks(redo.address(redo.shards[0])))
    dataset.withdraw([(image.image_id, masks[0].mask_id)], "wrong")
    dataset.maintenance.rebuild_tables()
    assert dataset.query(COUNTS).to_pylist() == [{"images": 4, "masks": 6 + 8 - 1}]
    assert dataset.maintenance.verify().faults == ()
    assert [status.missing for status in dataset.status()] == [()] * 4


def test_of_racing_workers_and_folders_every_image_counts_once(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = dataset.new_plan("images", [SHARD], {})
    photos = [samples.make_image(number) for number in range(3)]
    barrier, records = threading.Barrier(6), []

    def work() -> None:
        own = Dataset.open(dataset.uri)
        attempt = begin_attempt(own.store, plan, SHARD)
        put_images(attempt, photos)
        barrier.wait()
        records.append(attempt.commit())
        own.fold()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records) == 6
    assert len({record.attempt_id for record in records}) == 1
    assert len(list(dataset.store.list("data/"))) == 2
    assert dataset.query(COUNTS).to_pylist() == [{"images": 3, "masks": 0}]
    assert dataset.maintenance.verify().faults == ()


@pytest.mark.parametrize("fault", [*REFUSES, *LOSES])
def test_a_commit_whose_first_answer_fails_is_made_once(
    s3_server: str, dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    left = ["PUT /commits/"]

    def fault_of(request: BaseHTTPRequestHandler) -> str:
        return fault if left and request.command == "PUT" and "/commits/" in request.path and left.pop() else ""

    plan = dataset.new_plan("images", [SHARD], {})
    with serving(proxy_to(s3_server, fault_of)) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        store = open_store(dataset.uri)
        attempt = begin_attempt(store, plan, SHARD)
        put_images(attempt, [samples.make_image(1)])
        assert attempt.commit().attempt_id == attempt.attempt_id
    assert left == []
    assert len(list(dataset.store.list("data/"))) == 2
    assert dataset.maintenance.verify().faults == ()


def test_a_body_that_breaks_off_is_read_again(s3_server: str, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, data, cuts = open_store(s3_uri), os.urandom(3_000_000), list[str]()

    def fault_of(request: BaseHTTPRequestHandler) -> str:
        if request.command == "GET" and len(cuts) < 2:
            cuts.append(request.path)
            return BREAKS_OFF
        return ""

    store.put("data/x", data)
    with serving(proxy_to(s3_server, fault_of)) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert open_store(s3_uri).get("data/x") == data
        assert sha256_of(open_store(s3_uri), "data/x") == sha256_of(store, "data/x")
    assert len(cuts) == 2


@pytest.mark.parametrize("seed", [1])
def test_a_whole_run_through_a_failing_network_loses_and_doubles_nothing(
    s3_server: str, dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice, faults = random.Random(seed), []

    def fault_of(request: BaseHTTPRequestHandler) -> str:
        if dice.random() > 0.12:
            return ""
        faults.append(dice.choice([*REFUSES, *LOSES, *([BREAKS_OFF] if request.command == "GET" else [])]))
        return faults[-1]

    with serving(proxy_to(s3_server, fault_of)) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        behind = Dataset.open(dataset.uri)
        samples.ingest(behind)
        samples.mask(behind)
        behind.fold()
        assert behind.query(COUNTS).to_pylist() == [{"images": 4, "masks": 12}]
    assert len(faults) > 10
    assert dataset.query(COUNTS).to_pylist() == [{"images": 4, "masks": 12}]
    assert dataset.maintenance.verify().faults == ()


def test_large_objects_go_up_in_parts_and_what_a_dead_upload_left_can_be_removed(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_PARTS", TransferConfig(multipart_threshold=6 << 20, multipart_chunksize=5 << 20))
    store: Any = open_store(s3_uri)
    data = os.urandom(17 << 20)
    assert store.write("data/p/s/g0-a.tar", lambda file: file.write(data)).nbytes == len(data)
    head = store._client.head_object(Bucket=store.bucket, Key=f"{store.prefix}/data/p/s/g0-a.tar")
    assert head["ETag"].endswith('-4"')  # four parts
    assert store.get_range("data/p/s/g0-a.tar", 16 << 20, 100) == data[16 << 20 : (16 << 20) + 100]
    with store.open("data/p/s/g0-a.tar") as stream:
        assert stream.read(10) == data[:10]
        assert stream.read() == data[10:]
    client, bucket = store._client, store.bucket
    client.create_multipart_upload(Bucket=bucket, Key=f"{store.prefix}/data/p/s/g0-b.tar")
    (left,) = store.unfinished()
    assert left.key == "data/p/s/g0-b.tar"
    store.remove_unfinished(left)
    assert list(store.unfinished()) == []


def test_listing_goes_on_past_one_page(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PAGE", 10)
    store = open_store(s3_uri)
    keys = [f"commits/p/{number:05d}.g0.json" for number in range(25)]
    for key in keys:
        store.put(key, b"")
    assert list(store.list("commits/p/")) == keys


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "refuses these credentials .SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "nobody", "refuses these credentials .InvalidAccessKeyId"),
    ],
)
def test_wrong_credentials_are_one_clear_line(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, message: str
) -> None:
    monkeypatch.setenv(setting, value)
    with pytest.raises(StoreError, match=message) as caught:
        Dataset.open_or_create(s3_uri)
    assert "\n" not in str(caught.value)


def test_no_credentials_and_no_bucket_are_one_clear_line(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="there is no bucket 'gigamask-nowhere'; create it"):
        Dataset.open_or_create("s3://gigamask-nowhere/dataset")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(StoreError, match="no credentials found; set AWS_ACCESS_KEY_ID"):
        Dataset.open_or_create(s3_uri)


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix", "s3://bucket/x?versionId=1"])
def test_an_address_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="expected s3://bucket/prefix"):
        open_store(uri)


def forgetful_server(objects: dict[str, bytes]) -> type[BaseHTTPRequestHandler]:
    """Puts whatever it is told, as servers do that do not know `If-None-Match`."""

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(200, b"")

        def do_GET(self) -> None:
            if "list-type" in self.path:
                self.reply(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
                return
            data = objects.get(self.path)
            code = b"<Error><Code>NoSuchKey</Code></Error>"
            self.reply(404, code) if data is None else self.reply(200, data)

        def do_DELETE(self) -> None:
            objects.pop(self.path, None)
            self.reply(204, b"")

        def reply(self, status: int, data: bytes) -> None:
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    return Server


def test_a_server_without_conditional_writes_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SimpleNamespace(ACCESS_KEY_ID="a", SECRET_ACCESS_KEY="b", REGION="us-east-1")
    for name, value in vars(settings).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    objects: dict[str, bytes] = {}
    with serving(forgetful_server(objects)) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StoreError, match=r"16 were told they created it, expected 1; .* no working put-if-absent"):
            Dataset.open_or_create("s3://bucket/dataset")
    assert objects == {}


def test_a_shard_damaged_on_the_server_is_never_read_in_silence(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = samples.ingest(dataset, shards=1)
    (commit,) = dataset.commits(plan)
    key = commit.tars()[0].key
    data = bytearray(dataset.store.get(key))
    data[600] ^= 1
    dataset.store.put(key, bytes(data))
    with pytest.raises(Corrupt):
        list(dataset.read_images(commit))
    dataset.store.delete(key)
    with pytest.raises(NotFound):
        list(dataset.read_images(commit))
