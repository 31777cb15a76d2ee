"""Commits: each attempt writes under keys of its own, and one commit record makes one attempt the shard.

A worker writes its attempt's objects, reads them back, then creates the commit record, which only one attempt can
create. The attempt whose id is in the record has won. So a retry, a crash, or a frozen worker that goes on after its
replacement finished can neither lose nor double a mask. Records, plans and objects never change afterwards.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, BinaryIO, cast

from storage.errors import Corrupt, NotFound, StoreError
from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import ObjectStore, sha256_of
from storage.protocol.inputs import Input, PlanKind, ShardAddress, inputs_from_json, inputs_to_json
from storage.protocol.plans import Plan, PlannedShard
from storage.records import Reject

_WORTH_THREADS = 16  # parallel reads over a network; fewer records are read one by one


class PartRole(StrEnum):
    """Role of one object of a shard: samples, table rows, withdrawn masks or facts about the work of annotators."""

    TAR = "tar"
    """Role of a tar, which holds the samples."""
    ROWS = "rows"
    """Role of a Parquet file, which holds the samples' rows for the table `images` or `masks`.

    In a shard of withdrawals, the file holds the withdrawn masks.
    """
    ANNOTATIONS = "annotations"
    """Role of a Parquet file, which holds rows for the table `annotations`: how people made the masks."""
    WITHDRAWN = "withdrawn"
    """Role of a Parquet file, which holds the masks that a shard of amendments withdraws."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One object of a shard, with its size and hash."""

    role: PartRole
    """Role of the object."""
    key: str
    """Key of the object."""
    nbytes: int
    """Size in bytes."""
    sha256: str
    """SHA-256 of the object, in hex."""
    images: int
    """Number of images in the part."""
    masks: int
    """Number of masks in the part."""


@dataclass(frozen=True, kw_only=True)
class ErasedObject:
    """Object of some shard, in which an erasure overwrites the files of images with zeros."""

    key: str
    """Key of the object."""
    ranges: tuple[tuple[int, int], ...]
    """Pairs of the first byte and the number of bytes that become zeros, ascending."""
    sha256: str
    """SHA-256 of the object with these zeros, in hex."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The commit record of a shard that is finished or was given up.

    When a redo is given up, the record of the new generation repeats that of the previous generation.
    """

    plan_id: str
    """Id of the plan under which the shard is stored."""
    shard: str
    """Name of the shard."""
    generation: int
    """Number of times that the shard was redone; 0 for the first generation."""
    kind: PlanKind
    """Kind of records in the shard: images, masks, withdrawals or erasures."""
    attempt_id: str
    """Id of the attempt that won; empty for a shard that was given up before any attempt made it."""
    parts: tuple[Part, ...]
    """Objects of the shard."""
    rejects: tuple[Reject, ...]
    """Inputs that could not be used."""
    model_id: str
    """Id of the model version that made the masks; empty where no model did."""
    seconds: float
    """Time that the work took, in seconds."""
    stats: Mapping[str, object]
    """Diagnostics of the stage, as JSON values."""
    committed_at: datetime
    """Time of the commit by the worker's clock, UTC."""
    made_by: str
    """Id of the plan that led to this record: `plan_id`, or the id of a redo's plan."""
    inputs: tuple[Input, ...]
    """Inputs that a shard of masks or amendments was made from; empty for other kinds of shards."""
    previous: str
    """SHA-256 of the record that this record replaces, in hex; empty for generation 0."""
    erased: tuple[ErasedObject, ...] = ()
    """Objects that an erasure overwrites in part; empty for other kinds of shards."""
    record_sha256: str = field(default="", compare=False)
    """SHA-256 of the stored record, in hex; empty before the record is stored."""

    @property
    def address(self) -> ShardAddress:
        """Address that plans and commands use for the shard."""
        return ShardAddress(plan_id=self.plan_id, shard=self.shard, generation=self.generation)

    @property
    def images(self) -> int:
        """Number of images in the tars."""
        return sum(part.images for part in self.parts if part.role is PartRole.TAR)

    @property
    def masks(self) -> int:
        """Number of masks in the tars."""
        return sum(part.masks for part in self.parts if part.role is PartRole.TAR)

    @property
    def nbytes(self) -> int:
        """Size of all parts together, in bytes."""
        return sum(part.nbytes for part in self.parts)

    def tars(self) -> list[Part]:
        """Return the parts that hold samples."""
        return [part for part in self.parts if part.role is PartRole.TAR]

    def withdrawn(self) -> list[Part]:
        """Return the parts that hold withdrawn masks."""
        role = PartRole.ROWS if self.kind is PlanKind.WITHDRAWALS else PartRole.WITHDRAWN
        return [part for part in self.parts if part.role is role]

    def rows(self) -> list[Part]:
        """Return the parts that hold table rows."""
        return [part for part in self.parts if part.role is PartRole.ROWS]

    def annotations(self) -> list[Part]:
        """Return the parts that hold rows of the table `annotations`."""
        return [part for part in self.parts if part.role is PartRole.ANNOTATIONS]


class Attempt:
    """One try of one worker to make one shard.

    The attempt writes objects under keys that no other attempt uses, and then the commit record. A crashed attempt
    leaves objects that no record names. Nothing reads such objects, and `clean` may delete them.
    """

    def __init__(self, store: ObjectStore, plan: Plan, shard: PlannedShard, attempt_id: str) -> None:
        self.store, self.plan, self.shard, self.attempt_id = store, plan, shard, attempt_id
        self.parts: list[Part] = []

    def key(self, extension: str) -> str:
        """Return the key of this attempt's object with the given file ending."""
        return f"data/{self.plan.home}/{self.shard.name}/{self.attempt_id}.{extension}"

    def put_part(
        self, role: PartRole, extension: str, fill: Callable[[BinaryIO], object], *, images: int = 0, masks: int = 0
    ) -> Part:
        """Write a part and read it back to check its size and SHA-256; `fill` writes the part's bytes.

        Raises:
            Corrupt: The bytes read back are not those that were written.
            StoreError: The store fails.
        """
        key, written = self.key(extension), _Hashing()
        self.store.write(key, lambda file: fill(written.onto(file)))
        nbytes, sha256 = self.store.head(key).nbytes, sha256_of(self.store, key)
        if (nbytes, sha256) != (written.nbytes, written.sha256()):
            raise Corrupt(f"{self.store.uri}/{key}: {nbytes} bytes came back, {written.nbytes} were written; try again")
        part = Part(role=role, key=key, nbytes=nbytes, sha256=sha256, images=images, masks=masks)
        self.parts.append(part)
        return part

    def commit(
        self,
        *,
        rejects: Iterable[Reject] = (),
        model_id: str = "",
        seconds: float = 0.0,
        stats: Mapping[str, object] | None = None,
        inherited: Sequence[Part] = (),
        erased: Sequence[ErasedObject] = (),
        committed_at: datetime | None = None,
    ) -> Commit:
        """Create the commit record of the shard, and return the record that is stored.

        If another attempt was faster, the stored record is that of the other attempt, as its `attempt_id` shows. This
        attempt then deletes its own objects.

        Raises:
            StoreError: The store fails and no record can be found. The objects stay, because the put may still succeed.
        """
        commit = Commit(
            plan_id=self.plan.home,
            shard=self.shard.name,
            generation=self.shard.generation,
            kind=self.plan.kind,
            attempt_id=self.attempt_id,
            parts=(*inherited, *self.parts),
            rejects=tuple(rejects),
            model_id=model_id,
            seconds=seconds,
            stats=stats or {},
            committed_at=committed_at or datetime.now(UTC),
            made_by=self.plan.plan_id,
            inputs=self.shard.inputs if self.plan.kind.table == "masks" else (),
            previous=self.shard.previous,
            erased=tuple(erased),
        )
        winner = put_commit(self.store, commit)
        if winner.attempt_id != self.attempt_id:
            self.discard()
        return winner

    def discard(self) -> None:
        """Delete this attempt's objects. Call this only if the attempt has lost or never tried to commit."""
        for part in self.parts:
            self.store.delete(part.key)


def new_attempt_id(shard: PlannedShard) -> str:
    """Make the id of a new attempt at a planned shard; the shard's record tells by it whether the attempt has won."""
    return f"g{shard.generation}-{uuid.uuid4().hex}"


def begin_attempt(store: ObjectStore, plan: Plan, shard: PlannedShard, *, attempt_id: str | None = None) -> Attempt:
    """Begin an attempt at a planned shard.

    Args:
        store: The store of the dataset.
        plan: The plan that holds the shard.
        shard: The shard to make.
        attempt_id: Id of the attempt, which begins with `g<generation>-`; None makes a new unique id.
    """
    return Attempt(store, plan, shard, attempt_id or new_attempt_id(shard))


def put_commit(store: ObjectStore, commit: Commit) -> Commit:
    """Store the record if the shard has none yet, and return the stored record.

    Raises:
        StoreError: The store fails and no record can be found.
    """
    try:
        store.put_if_absent(commit.address.key, commit_to_json(commit))
    except StoreError as error:  # Conflict, or a reply that was lost: the record itself knows
        try:
            return read_commit(store, commit.address)
        except NotFound:
            raise error from None
    return read_commit(store, commit.address)


def read_commit(store: ObjectStore, address: ShardAddress) -> Commit:
    """Read the record of a shard.

    Raises:
        NotFound: The shard has no record.
        Corrupt: The record is damaged, or belongs to another shard.
    """
    data = store.get(address.key)
    commit = commit_from_json(data, where=f"{store.uri}/{address.key}")
    if commit.address != address:
        raise Corrupt(
            f"{store.uri}/{address.key}: the record is that of {commit.address}; restore the file from a copy"
        )
    return replace(commit, record_sha256=hashlib.sha256(data).hexdigest())


def read_commits(store: ObjectStore, addresses: Sequence[ShardAddress]) -> list[Commit]:
    """Read the records of the given shards, several at a time, and return them in the given order.

    Raises:
        NotFound: A shard has no record.
        Corrupt: A record is damaged, or belongs to another shard.
    """
    if len(addresses) < _WORTH_THREADS:
        return [read_commit(store, address) for address in addresses]
    with ThreadPoolExecutor(max_workers=_WORTH_THREADS) as pool:
        return list(pool.map(lambda address: read_commit(store, address), addresses))


def list_commits(store: ObjectStore, plan_id: str = "", *, kind: PlanKind | None = None) -> Iterator[ShardAddress]:
    """List the addresses of commit records in ascending order; no record is read.

    Files below commits/ that cannot be records are skipped; `gigamask verify` names such files.

    Args:
        store: The store of the dataset.
        plan_id: Id of the plan whose records are listed; "" lists the records of all plans.
        kind: Kind of shard whose records are listed; None lists the records of every kind.
    """
    for key in store.list(f"commits/{plan_id}/" if plan_id else f"commits/{kind or ''}"):
        with suppress(ValueError):
            yield ShardAddress.of_key(key)


def newest_generations(addresses: Iterable[ShardAddress]) -> list[ShardAddress]:
    """Select the address with the highest generation of each shard. Only the newest generation counts."""
    newest: dict[str, ShardAddress] = {}
    for address in addresses:
        if address.lineage not in newest or newest[address.lineage].generation < address.generation:
            newest[address.lineage] = address
    return sorted(newest.values())


def commit_to_json(commit: Commit) -> bytes:
    """Write a commit record as JSON."""
    fields = asdict(commit)
    del fields["record_sha256"]
    if not commit.erased:
        del fields["erased"]  # so that records of other kinds stay as earlier versions know them
    inputs = inputs_to_json(commit.inputs)
    return json_bytes({"format": FORMAT, **fields, "inputs": inputs, "committed_at": commit.committed_at.isoformat()})


def commit_from_json(data: bytes, *, where: str) -> Commit:
    """Read a commit record from JSON. Error messages give `where` as the place of the record.

    Raises:
        Corrupt: The record is torn or malformed.
        StoreError: A newer version of gigamask wrote the record.
    """
    fields = read_json(data, "commit", where)
    if fields["kind"] not in [*PlanKind]:
        raise StoreError(
            f"{where}: a record of kind {fields['kind']!r}, which this version does not know; use a newer one"
        )
    with corrupt_where_malformed(where):
        del fields["format"]
        fields["parts"] = tuple(Part(**{**part, "role": PartRole(part["role"])}) for part in fields["parts"])
        fields["kind"] = PlanKind(fields["kind"])
        fields["inputs"] = inputs_from_json(fields["kind"], fields["inputs"])
        fields["rejects"] = tuple(Reject(**reject) for reject in fields["rejects"])
        fields["erased"] = tuple(_erased_object(each) for each in fields.get("erased", ()))
        fields["committed_at"] = datetime.fromisoformat(fields["committed_at"])
        return Commit(**fields)


def _erased_object(fields: Mapping[str, Any]) -> ErasedObject:
    ranges = tuple((start, nbytes) for start, nbytes in fields["ranges"])
    return ErasedObject(key=fields["key"], ranges=ranges, sha256=fields["sha256"])


class _Hashing:
    """A file that counts and hashes the bytes written to it."""

    def __init__(self) -> None:
        self.nbytes, self._digest = 0, hashlib.sha256()

    def onto(self, file: BinaryIO) -> BinaryIO:
        self.nbytes, self._digest, self._file = 0, hashlib.sha256(), file
        return cast("BinaryIO", self)

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.nbytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def sha256(self) -> str:
        return self._digest.hexdigest()
