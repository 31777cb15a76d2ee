"""Re-reads a dataset's bytes without the dataset's code: json, hashlib, tarfile, pycocotools and Parquet files alone.

What must be there follows from the plans (truth.py): every planned image once, every mask once, in the shards and in
the tables, pixel by pixel. Objects never change once they are named, so each is read once per checker.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from tests.faults import truth
from tests.faults.checks.files import Files, delta_rows, own_keys
from tests.faults.checks.findings import DAMAGED, DOUBLED, FOREIGN, LOST, TORN, UNFINISHED, Finding
from tests.faults.checks.fold_order import Place, State
from tests.faults.checks.table_rows import COLUMNS, TABLES, expected_rows


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
    def kind(self) -> str:
        return self.fields["kind"]

    @property
    def generation(self) -> int:
        return self.fields["generation"]

    def parts(self, role: str) -> list[dict[str, Any]]:
        return [part for part in self.fields["parts"] if part["role"] == role]


class Checker:
    """One look at a dataset. `check(complete=True)` once nobody is at work, `check(complete=False)` at any time.

    `originals`: what the harness has destroyed, as it was. A record whose rows are among it need not be in the tables.
    """

    def __init__(self, files: Files, originals: Mapping[str, bytes] = MappingProxyType({})) -> None:
        self.files, self.originals = files, originals
        self._objects: dict[str, bytes] = dict(originals)
        self._image_ids: dict[str, frozenset[int]] = {}

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
        fields = [self.document(key) for key in own_keys(self.files, "plans/")]
        return {each["plan_id"]: each for each in fields}

    def plan(self, plan_id: str) -> dict[str, Any]:
        """One plan; it may be newer than the first look at all plans."""
        return self.document(f"plans/{plan_id}.json")

    @cached_property
    def records(self) -> dict[str, Record]:
        """By key."""
        return {key: self.record(key) for key in own_keys(self.files, "commits/")}

    def record(self, key: str) -> Record:
        data = self.object(key)
        return Record(key=key, sha256=hashlib.sha256(data).hexdigest(), fields=json.loads(data))

    def object(self, key: str) -> bytes:
        if key not in self._objects:
            self._objects[key] = self.files.get(key)
        return self._objects[key]

    def document(self, key: str) -> dict[str, Any]:
        return json.loads(self.object(key))

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
        settings = self.plan(record.fields["made_by"])["settings"]
        address, *places = self.inputs_of(record)
        photos = self.photos_of(self.record(f"commits/{address}.json"))
        for text in places:  # a range of the shard's images
            start, stop = map(int, text.split(":"))
            photos = photos[start:stop]
        if not settings["inherit"]:
            return dict.fromkeys(photos[settings["skip"] :], settings["variant"])
        before = self.masked(self.record(f"commits/{record.place[0]}/{record.place[1]}.g{record.generation - 1}.json"))
        return {**dict.fromkeys(photos, settings["variant"]), **before}

    def inputs_of(self, record: Record) -> list[str]:
        plan = self.plan(record.fields["made_by"])
        return next(shard["inputs"] for shard in plan["shards"] if shard["name"] == record.fields["shard"])

    def members(self, part: dict[str, Any]) -> list[tuple[str, int, bytes]]:
        """Name, offset and bytes of each file in a tar."""
        with tarfile.open(fileobj=io.BytesIO(self.object(part["key"]))) as tar:
            return [(info.name, info.offset_data, tar.extractfile(info).read()) for info in tar]

    # The tables

    def newest_done(self) -> int:
        keys = [key for key in own_keys(self.files, "folds/") if key.endswith(".done.json")]
        return max(int(key.rpartition("/")[2].partition(".")[0]) for key in keys)

    def done(self, number: int) -> dict[str, Any]:
        return self.document(f"folds/{number:08d}.done.json")

    def state(self, number: int) -> State:
        """What is in the tables at a fold: what its log says, from the first fold on.

        Rebuilt tables lie in a folder of their own; what they hold is what their list, or their own `shards`, say.
        """
        state = State()
        for each in range(1, number + 1):
            done = self.done(each)
            if done["folder"] != self.done(each - 1)["folder"]:
                before = set(state.taken)
                state.rebuild(self.rebuilt_records(each, done), self)
                gone = {place for place in before - set(state.taken) if not self.has_destroyed(place)}
                assert not gone, f"rebuilt tables of fold {each} lack {gone}"
            else:
                fold = self.document(f"folds/{each:08d}.json")
                if fold["action"] != "compact":
                    state.fold([self.record(record["key"]) for record in fold["records"]], self)
        return state

    def rebuilt_records(self, number: int, done: dict[str, Any]) -> list[Record]:
        rows = self.rows(done["folder"], "shards", done["versions"]["shards"])
        there = [self.record(f"commits/{row['plan']}/{row['shard']}.g{row['generation']}.json") for row in rows]
        try:
            fold = self.document(f"folds/{number:08d}.{done['folder']}.json")
        except KeyError:  # made by an earlier version
            return there
        listed = [self.record(record["key"]) for record in fold["records"]]
        assert {each.key for each in listed} == {each.key for each in there}, f"list of the rebuild at fold {number}"
        return listed

    def has_destroyed(self, place: Place) -> bool:
        """Whether a generation of a shard has lost its rows."""
        return any(record.place == place and self.is_destroyed(record) for record in self.records.values())

    def image_ids(self, record: Record) -> frozenset[int]:
        """Images in an image shard, or images that a mask shard has masks of."""
        if record.key not in self._image_ids:
            ids = set()
            for part in record.parts("tar"):
                for name, _, data in self.members(part):
                    if record.kind == "images" and name.endswith(".jpg"):
                        ids.add(int(hashlib.sha256(data).hexdigest()[:16], 16) >> 1)
                    elif record.kind == "masks":
                        ids.update({json.loads(data)["image"]["image_id"]} if json.loads(data)["annotations"] else ())
            self._image_ids[record.key] = frozenset(ids)
        return self._image_ids[record.key]

    def source_of(self, record: Record) -> Place:
        """The image shard that a mask shard was made from."""
        plan, _, rest = record.fields["inputs"][0].partition("/") if record.fields["inputs"] else ("", "", "")
        return plan, rest.rpartition(".g")[0]

    def masks_made(self, record: Record) -> frozenset[tuple[int, str]]:
        """Image and hash of the settings of all masks in a mask shard: those of its plan, or those it inherited."""
        plan, images = self.plan(record.fields["made_by"]), self.image_ids(record)
        inherited: frozenset[tuple[int, str]] = frozenset()
        if plan["settings"].get("inherit"):
            before = f"commits/{record.place[0]}/{record.place[1]}.g{record.generation - 1}.json"
            inherited = self.masks_made(self.record(before))
        old = {image for image, _ in inherited}
        return inherited | {(image, plan["settings_hash"]) for image in images - old}

    def settings_of(self, record: Record) -> str:
        """The hash of the settings that the shard's first generation was made with."""
        home = record.place[0]
        return home.rpartition("-by-")[2] if "-by-" in home else self.plan(home)["settings_hash"][:16]

    def rows(self, folder: str, name: str, version: int) -> list[dict[str, Any]]:
        return delta_rows(self.object, folder, name, version)

    def table_findings(self, number: int) -> list[Finding]:
        done = self.done(number)
        return self.state_findings(f"fold {number}", done["folder"], done["versions"], self.state(number))

    def snapshot_findings(self) -> list[Finding]:
        findings = []
        for key in own_keys(self.files, "snapshots/"):
            fields = self.document(key)
            state = self.state(fields["fold"])
            hashes = "\n".join(sorted(record.sha256 for record in state.taken.values()))
            if hashlib.sha256(hashes.encode()).hexdigest() != fields["records_sha256"]:
                findings.append(Finding(kind=TORN, thing="table", what=f"{key} names other records than its fold"))
            findings += self.state_findings(key, fields["folder"], fields["versions"], state)
        return findings

    def state_findings(self, where: str, folder: str, versions: dict[str, Any], state: State) -> list[Finding]:
        """The four tables at these versions hold what these records say, each row once."""
        try:
            got = {name: self.rows(folder, name, versions[name]) for name in TABLES}
        except (KeyError, OSError, pa.ArrowInvalid) as error:
            return [Finding(kind=TORN, thing="table", what=f"{where}: {error!r}")]
        expected = expected_rows(self, state)
        findings = []
        for name in TABLES:
            rows = Counter(tuple(row[column] for column in COLUMNS[name]) for row in got[name])
            findings += differences(f"row of {name}", expected[name], rows, where=where)
        ids = Counter(row["image_id"] for row in got["images"])
        findings += differences("image", Counter(set(ids)), ids, where=where)
        masked = {(row["image_id"], row["config_hash"], row["plan"], row["shard"]) for row in got["masks"]}
        shards = Counter(each[:2] for each in masked)
        findings += differences("masks of an image by the same settings", Counter(set(shards)), shards, where=where)
        return findings

    def completeness_findings(self, newest: dict[tuple[str, str], Record], number: int) -> list[Finding]:
        """Every planned shard has its record, and the tables hold every newest record."""
        planned = {
            (home_of(plan), shard["name"], shard["generation"])
            for plan in self.plans.values()
            for shard in plan["shards"]
        }
        made = {(*record.place, record.generation) for record in self.records.values()}
        findings = [Finding(kind=UNFINISHED, thing="shard", what=str(each)) for each in sorted(planned - made)]
        findings += [Finding(kind=FOREIGN, thing="shard", what=str(each)) for each in sorted(made - planned)]
        taken = self.state(number).taken
        aside = {place for place, record in newest.items() if self.is_destroyed(record) and taken.get(place) != record}
        expected = Counter(record.key for place, record in newest.items() if place not in aside)
        got = Counter(record.key for place, record in taken.items() if place not in aside)
        return findings + differences("shard", expected, got, "tables")

    def is_destroyed(self, record: Record) -> bool:
        """Whether its rows are lost, so that no fold can take it any more."""
        return any(part["key"] in self.originals for part in record.parts("rows"))


def home_of(plan: dict[str, Any]) -> str:
    """Where a plan's shards lie; earlier versions did not say."""
    return plan.get("home") or plan["redoes"] or plan["plan_id"]


def differences(thing: str, expected: Counter[Any], got: Counter[Any], where: str = "shards") -> list[Finding]:
    findings = []
    for each in expected.keys() | got.keys():
        wanted, found = expected[each], got[each]
        if wanted != found:
            kind = LOST if found < wanted else DOUBLED if wanted else FOREIGN
            findings.append(Finding(kind=kind, thing=thing, what=f"{where}: {each}: {found}, expected {wanted}"))
    return findings


def digest(mask_HW: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(mask_HW.astype(bool)).tobytes()).hexdigest()
