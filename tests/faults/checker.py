"""Re-reads a dataset's bytes without the dataset's code: json, hashlib, tarfile, pycocotools and Parquet files alone.

What must be there follows from the plans (truth.py): every planned image once, every mask once, in the shards and in
the tables, pixel by pixel. Objects never change once they are named, so each is read once per checker.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco

from tests.faults import truth

TABLES = ("images", "masks", "shards", "rejects")
LOST, DOUBLED, FOREIGN = "lost", "doubled", "foreign"  # a row or a sample that must, or must not, be there
DAMAGED, TORN, UNFINISHED = "damaged", "torn", "unfinished"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong. `kind`: one of the words above. `thing`: image, mask, shard, record, object or table."""

    kind: str
    thing: str
    what: str


class Files(Protocol):
    """A dataset's files by key."""

    def get(self, key: str) -> bytes:
        """Raises KeyError."""

    def keys(self, prefix: str) -> list[str]:
        """All keys below a folder ("commits/"), sorted."""


class FolderFiles:
    """Files of a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError as error:
            raise KeyError(key) from error

    def keys(self, prefix: str) -> list[str]:
        found = (path.relative_to(self.root).as_posix() for path in (self.root / prefix).rglob("*.*"))
        return sorted(key for key in found if not key.rpartition("/")[2].startswith("."))


class BucketFiles:
    """Files below a prefix of a bucket."""

    def __init__(self, endpoint: str, bucket: str, prefix: str) -> None:
        self.client = boto3.client("s3", endpoint_url=endpoint)
        self.bucket, self.prefix = bucket, prefix

    def get(self, key: str) -> bytes:
        try:
            return self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}")["Body"].read()
        except self.client.exceptions.NoSuchKey as error:
            raise KeyError(key) from error

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}/{prefix}"
        )
        return sorted(entry["Key"][len(self.prefix) + 1 :] for page in pages for entry in page.get("Contents", ()))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One commit record as it lies there."""

    key: str
    sha256: str
    fields: dict[str, Any]

    @property
    def place(self) -> tuple[str, str]:
        return self.fields["plan_id"], self.fields["shard"]

    @property
    def generation(self) -> int:
        return self.fields["generation"]

    def parts(self, role: str) -> list[dict[str, Any]]:
        return [part for part in self.fields["parts"] if part["role"] == role]


class Checker:
    """One look at a dataset. `check(complete=True)` once nobody is at work, `check(complete=False)` at any time."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._objects: dict[str, bytes] = {}

    def check(self, *, complete: bool) -> list[Finding]:
        findings = self.object_findings()
        if findings:
            return findings  # the rest would stumble over the same objects
        newest = self.newest_records(self.records.values())
        findings += self.image_findings(newest)
        findings += self.mask_findings(newest)
        findings += self.generation_findings()
        number = self.newest_done()
        findings += self.table_findings(number)
        findings += self.snapshot_findings()
        if complete:
            findings += self.completeness_findings(newest, number)
        return findings

    @cached_property
    def plans(self) -> dict[str, dict[str, Any]]:
        fields = [json.loads(self.files.get(key)) for key in self.files.keys("plans/")]
        return {each["plan_id"]: each for each in fields}

    @cached_property
    def records(self) -> dict[str, Record]:
        """By key."""
        return {key: self.record(key) for key in self.files.keys("commits/")}

    def record(self, key: str) -> Record:
        data = self.object(key)
        return Record(key=key, sha256=hashlib.sha256(data).hexdigest(), fields=json.loads(data))

    def object(self, key: str) -> bytes:
        if key not in self._objects:
            self._objects[key] = self.files.get(key)
        return self._objects[key]

    def newest_records(self, records: Iterable[Record]) -> dict[tuple[str, str], Record]:
        newest: dict[tuple[str, str], Record] = {}
        for record in records:
            if record.place not in newest or newest[record.place].generation < record.generation:
                newest[record.place] = record
        return newest

    def object_findings(self) -> list[Finding]:
        """Every object that any record names is there, whole."""
        findings = []
        for record in self.records.values():
            for part in record.fields["parts"]:
                try:
                    data = self.object(part["key"])
                except KeyError:
                    findings.append(Finding(kind=LOST, thing="object", what=f"{record.key}: {part['key']} is gone"))
                    continue
                if (len(data), hashlib.sha256(data).hexdigest()) != (part["nbytes"], part["sha256"]):
                    findings.append(Finding(kind=DAMAGED, thing="object", what=part["key"]))
        return findings

    def image_findings(self, newest: dict[tuple[str, str], Record]) -> list[Finding]:
        """Every image of every finished shard once in all image shards, byte by byte."""
        expected: Counter[Any] = Counter()
        got: Counter[Any] = Counter()
        for record in newest.values():
            if record.fields["kind"] == "images" and record.fields["attempt_id"]:
                expected.update(hashlib.sha256(truth.photo(number)).hexdigest() for number in self.photos_of(record))
                for part in record.parts("tar"):
                    got.update(
                        hashlib.sha256(data).hexdigest() for name, _, data in self.members(part) if name[-4:] == ".jpg"
                    )
        return differences("image", expected, got)

    def mask_findings(self, newest: dict[tuple[str, str], Record]) -> list[Finding]:
        """Every mask of every finished shard once in its shard, pixel by pixel, and no id twice in its image."""
        findings = []
        ids: Counter[Any] = Counter()
        for record in newest.values():
            if record.fields["kind"] == "masks" and record.fields["attempt_id"]:
                got: Counter[Any] = Counter()
                for part in record.parts("tar"):
                    for _, _, data in self.members(part):
                        document = json.loads(data)
                        image = document["image"]["image_id"]
                        got.update((image, digest(coco.decode(a["segmentation"]))) for a in document["annotations"])
                        ids.update((image, a["id"]) for a in document["annotations"])
                findings += differences("mask", Counter(self.masks_of(record)), got, where=record.key)
        return findings + differences("mask", Counter(set(ids)), ids, where="ids")

    def generation_findings(self) -> list[Finding]:
        """Every record names, by its hash, the record of the generation before it, as that lies there."""
        by_place = {(*record.place, record.generation): record for record in self.records.values()}
        findings = []
        for record in self.records.values():
            before = by_place.get((*record.place, record.generation - 1))
            expected = before.sha256 if before else ("" if record.generation == 0 else "a record that is there")
            if record.fields["previous"] != expected:
                got = record.fields["previous"] or "none"
                findings.append(
                    Finding(
                        kind=FOREIGN, thing="record", what=f"{record.key} replaces {got}, expected {expected or 'none'}"
                    )
                )
        return findings

    def photos_of(self, record: Record) -> list[int]:
        """Photographs that this image record must hold."""
        return truth.numbers(self.inputs_of(record), mended=record.generation > 0)

    def masks_of(self, record: Record) -> Iterator[tuple[int, str]]:
        """(image id, digest of the pixels) of every mask that this mask record must hold."""
        for number, variant in self.masked(record).items():
            for ordinal in range(truth.MASKS_PER_IMAGE):
                yield truth.image_id(number), digest(truth.mask_HW(number, ordinal, variant))

    def masked(self, record: Record) -> dict[int, int]:
        """Photograph -> variant of its masks; none where the shard was closed."""
        if not record.fields["attempt_id"]:
            return {}
        settings = self.plans[record.fields["made_by"]]["settings"]
        (address,) = self.inputs_of(record)
        photos = self.photos_of(self.record(f"commits/{address}.json"))
        if not settings["inherit"]:
            return dict.fromkeys(photos[settings["skip"] :], settings["variant"])
        before = self.masked(self.record(f"commits/{record.place[0]}/{record.place[1]}.g{record.generation - 1}.json"))
        return {**dict.fromkeys(photos, settings["variant"]), **before}

    def inputs_of(self, record: Record) -> list[str]:
        home = self.plans[record.fields["plan_id"]]
        return next(shard["inputs"] for shard in home["shards"] if shard["name"] == record.fields["shard"])

    def members(self, part: dict[str, Any]) -> list[tuple[str, int, bytes]]:
        """Name, offset and bytes of each file in a tar."""
        with tarfile.open(fileobj=io.BytesIO(self.object(part["key"]))) as tar:
            return [(info.name, info.offset_data, tar.extractfile(info).read()) for info in tar]

    # The tables

    def newest_done(self) -> int:
        keys = [key for key in self.files.keys("folds/") if key.endswith(".done.json")]
        return max(int(key.rpartition("/")[2].partition(".")[0]) for key in keys)

    def done(self, number: int) -> dict[str, Any]:
        return json.loads(self.object(f"folds/{number:08d}.done.json"))

    def taken(self, number: int) -> dict[tuple[str, str], Record]:
        """The records in the tables at a fold: those of its log, from the last rebuilt tables on.

        Rebuilt tables lie in a folder of their own; what they hold is what their own `shards` say.
        """
        records: list[Record] = []
        for each in range(1, number + 1):
            done = self.done(each)
            if done["folder"] != self.done(each - 1)["folder"]:
                rows = self.rows(done["folder"], "shards", done["versions"]["shards"])
                before = set(self.newest_records(records))
                records = [self.record(f"commits/{r['plan']}/{r['shard']}.g{r['generation']}.json") for r in rows]
                assert before <= {record.place for record in records}, f"rebuilt tables of fold {each} lack shards"
            else:
                fold = json.loads(self.object(f"folds/{each:08d}.json"))
                records += [self.record(record["key"]) for record in fold["records"]]
        return self.newest_records(records)

    def rows(self, folder: str, name: str, version: int) -> list[dict[str, Any]]:
        """A Delta table at a version: its log read line by line, its Parquet files one by one."""
        live: dict[str, dict[str, Any]] = {}
        for each in range(version + 1):
            for line in self.object(f"{folder}/{name}/_delta_log/{each:020d}.json").splitlines():
                action = json.loads(line)
                if "add" in action:
                    assert not action["add"].get("deletionVector"), "this reader knows no deletion vectors"
                    live[action["add"]["path"]] = action["add"]
                if "remove" in action:
                    del live[action["remove"]["path"]]
        files = [self.object(f"{folder}/{name}/{unquote(path)}") for path in live]
        return [row for data in files for row in _parquet(data)]

    def table_findings(self, number: int) -> list[Finding]:
        done = self.done(number)
        return self.state_findings(f"fold {number}", done["folder"], done["versions"], self.taken(number))

    def snapshot_findings(self) -> list[Finding]:
        findings = []
        for key in self.files.keys("snapshots/"):
            fields = json.loads(self.files.get(key))
            taken = self.taken(fields["fold"])
            hashes = "\n".join(sorted(record.sha256 for record in taken.values()))
            if hashlib.sha256(hashes.encode()).hexdigest() != fields["records_sha256"]:
                findings.append(Finding(kind=TORN, thing="table", what=f"{key} names other records than its fold"))
            findings += self.state_findings(key, fields["folder"], fields["versions"], taken)
        return findings

    def state_findings(self, where: str, folder: str, versions: dict[str, Any], taken: dict[str, Any]) -> list[Finding]:
        """The four tables at these versions hold what these records say, each row once."""
        try:
            got = {name: self.rows(folder, name, versions[name]) for name in TABLES}
        except (KeyError, OSError, pa.ArrowInvalid) as error:
            return [Finding(kind=TORN, thing="table", what=f"{where}: {error!r}")]
        expected = self.expected_rows(taken)
        columns = {
            "images": ("image_id", "plan", "shard", "part", "member_offset", "member_nbytes", "stored_sha256"),
            "masks": ("image_id", "mask_id", "plan", "shard", "generation", "part", "member_offset", "ordinal"),
            "shards": ("plan", "shard", "generation", "images", "masks", "record_sha256"),
            "rejects": ("source", "plan", "shard"),
        }
        findings = []
        for name in TABLES:
            rows = Counter(tuple(row[column] for column in columns[name]) for row in got[name])
            findings += differences(f"row of {name}", expected[name], rows, where=where)
        return findings

    def expected_rows(self, taken: dict[tuple[str, str], Record]) -> dict[str, Counter[Any]]:
        """Rows of the four tables, made from the shards' own bytes."""
        rows: dict[str, Counter[Any]] = {name: Counter() for name in TABLES}
        withdrawn = self.withdrawn(taken.values())
        for (plan, shard), record in taken.items():
            fields = record.fields
            counts = [sum(part[what] for part in record.parts("tar")) for what in ("images", "masks")]
            rows["shards"][(plan, shard, record.generation, *counts, record.sha256)] += 1
            rows["rejects"].update((reject["source"], plan, shard) for reject in fields["rejects"])
            for part in record.parts("tar"):
                generation = int(part["key"].rpartition("/g")[2].partition("-")[0])
                for name, offset, data in self.members(part):
                    if fields["kind"] == "images" and name.endswith(".jpg"):
                        sha256 = hashlib.sha256(data).hexdigest()
                        image_place = (plan, shard, part["key"], offset, len(data), sha256)
                        rows["images"][(int(sha256[:16], 16) >> 1, *image_place)] += 1
                    elif fields["kind"] == "masks":
                        document = json.loads(data)
                        for ordinal, mask in enumerate(document["annotations"]):
                            pair = (document["image"]["image_id"], mask["id"])
                            if pair not in withdrawn:
                                place = (plan, shard, generation, part["key"], offset, ordinal)
                                rows["masks"][(*pair, *place)] += 1
        return rows

    def withdrawn(self, records: Iterable[Record]) -> set[tuple[int, int]]:
        pairs = set()
        for record in records:
            if record.fields["kind"] == "withdrawals":
                for part in record.parts("rows"):
                    pairs |= {(row["image_id"], row["mask_id"]) for row in _parquet(self.object(part["key"]))}
        return pairs

    def completeness_findings(self, newest: dict[tuple[str, str], Record], number: int) -> list[Finding]:
        """Every planned shard has its record, and the tables hold every newest record."""
        planned = {
            (plan["redoes"] or plan["plan_id"], shard["name"], shard["generation"])
            for plan in self.plans.values()
            for shard in plan["shards"]
        }
        made = {(*record.place, record.generation) for record in self.records.values()}
        findings = [Finding(kind=UNFINISHED, thing="shard", what=str(each)) for each in sorted(planned - made)]
        findings += [Finding(kind=FOREIGN, thing="shard", what=str(each)) for each in sorted(made - planned)]
        in_tables = Counter(record.key for record in self.taken(number).values())
        return findings + differences("shard", Counter(record.key for record in newest.values()), in_tables, "tables")


def differences(thing: str, expected: Counter[Any], got: Counter[Any], where: str = "shards") -> list[Finding]:
    findings = []
    for each in expected.keys() | got.keys():
        wanted, found = expected[each], got[each]
        if wanted != found:
            kind = LOST if found < wanted else DOUBLED if wanted else FOREIGN
            findings.append(Finding(kind=kind, thing=thing, what=f"{where}: {each}: {found}, expected {wanted}"))
    return findings


def _parquet(data: bytes) -> list[dict[str, Any]]:
    return pq.ParquetFile(io.BytesIO(data)).read(use_threads=False).to_pylist()


def digest(mask_HW: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(mask_HW.astype(bool)).tobytes()).hexdigest()
