"""Commits: attempts under keys that are never used twice, and one record that makes one attempt the shard.

A worker writes its attempt's objects, reads them back, then creates the commit record with put-if-absent. The attempt
whose id the record holds has won. So a retry, a crash or a worker that thaws after its replacement finished can
neither lose nor double a mask. Records, plans and objects are never changed afterwards.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import BinaryIO, cast

from storage.errors import Corrupt, NotFound, StoreError
from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import ObjectStore, sha256_of
from storage.protocol.inputs import Input, PlanKind, ShardAddress, inputs_from_json, inputs_to_json
from storage.protocol.plans import Plan, PlannedShard
from storage.records import Reject

_WORTH_THREADS = 16  # parallel reads over a network; fewer records are read one by one


class PartRole(StrEnum):
    """What an object of a shard is."""

    TAR = "tar"
    """The samples."""
    ROWS = "rows"
    """Parquet: the samples' rows of the table of the shard's kind."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One object of a shard."""

    role: PartRole
    """Role of the object: samples or table rows."""
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
class Commit:
    """The record of a finished shard, or of one that was given up.

    A redo that is given up is closed by the previous generation's record, repeated under the new generation.
    """

    plan_id: str
    """Plan under which the shard lies."""
    shard: str
    """Name of the shard."""
    generation: int
    """0, or the number of the redo."""
    kind: PlanKind
    """What the shard holds."""
    attempt_id: str
    """Attempt that won; empty for a shard that was closed unmade."""
    parts: tuple[Part, ...]
    """Objects of the shard."""
    rejects: tuple[Reject, ...]
    """Inputs that could not be used."""
    model_id: str
    """Model version that made the masks; empty for none."""
    seconds: float
    """Seconds of work."""
    stats: Mapping[str, object]
    """Diagnostics of the stage, as JSON values."""
    committed_at: datetime
    """Time of the commit by the worker's clock, UTC."""
    made_by: str
    """Plan that asked for the shard: plan_id, or that of a redo."""
    inputs: tuple[Input, ...]
    """Inputs a mask shard was made from; empty for other kinds."""
    previous: str
    """SHA-256 of the record this one replaces, in hex; empty for generation 0."""
    record_sha256: str = field(default="", compare=False)
    """SHA-256 of the stored record, in hex; empty before it is stored."""

    @property
    def address(self) -> ShardAddress:
        """Address by which plans and commands name the shard."""
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
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    def tars(self) -> list[Part]:
        """Return the parts that hold samples."""
        return [part for part in self.parts if part.role is PartRole.TAR]

    def rows(self) -> list[Part]:
        """Return the parts that hold table rows."""
        return [part for part in self.parts if part.role is PartRole.ROWS]


class Attempt:
    """One try at a shard: objects under keys of its own, then the commit record.

    A crashed attempt leaves objects that no record names: they are never read, and `clean` may delete them.
    """

    def __init__(self, store: ObjectStore, plan: Plan, shard: PlannedShard, attempt_id: str) -> None:
        self.store, self.plan, self.shard, self.attempt_id = store, plan, shard, attempt_id
        self.parts: list[Part] = []

    def key(self, extension: str) -> str:
        """Return the key of this attempt's part with that file ending."""
        return f"data/{self.plan.home}/{self.shard.name}/{self.attempt_id}.{extension}"

    def put_part(
        self, role: PartRole, extension: str, fill: Callable[[BinaryIO], object], *, images: int = 0, masks: int = 0
    ) -> Part:
        """Write a part, whose bytes `fill` writes, and read its size and SHA-256 back.

        Raises:
            Corrupt: Other bytes came back than were written.
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
        committed_at: datetime | None = None,
    ) -> Commit:
        """Create the shard's record and return the stored one; its `attempt_id` tells which attempt won.

        A losing attempt deletes its own objects.

        Raises:
            StoreError: The store fails and no record can be found; the objects stay, for the put may still succeed.
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
            inputs=self.shard.inputs if self.plan.kind is PlanKind.MASKS else (),
            previous=self.shard.previous,
        )
        winner = put_commit(self.store, commit)
        if winner.attempt_id != self.attempt_id:
            self.discard()
        return winner

    def discard(self) -> None:
        """Delete this attempt's objects; only for an attempt that has lost or never tried to commit."""
        for part in self.parts:
            self.store.delete(part.key)


def begin_attempt(store: ObjectStore, plan: Plan, shard: PlannedShard, *, attempt_id: str | None = None) -> Attempt:
    """Begin an attempt at a planned shard, under a unique id that begins with the generation (see cleaning.py)."""
    return Attempt(store, plan, shard, attempt_id or f"g{shard.generation}-{uuid.uuid4().hex}")


def put_commit(store: ObjectStore, commit: Commit) -> Commit:
    """Put the record if there is none, and return the stored one.

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
        NotFound: There is none.
        Corrupt: It is damaged, or is that of another shard.
    """
    data = store.get(address.key)
    commit = commit_from_json(data, where=f"{store.uri}/{address.key}")
    if commit.address != address:
        raise Corrupt(
            f"{store.uri}/{address.key}: the record is that of {commit.address}; restore the file from a copy"
        )
    return replace(commit, record_sha256=hashlib.sha256(data).hexdigest())


def read_commits(store: ObjectStore, addresses: Sequence[ShardAddress]) -> list[Commit]:
    """Read the records of these shards, in their order, several at a time.

    Raises:
        NotFound: A shard has none.
        Corrupt: One is damaged, or is that of another shard.
    """
    if len(addresses) < _WORTH_THREADS:
        return [read_commit(store, address) for address in addresses]
    with ThreadPoolExecutor(max_workers=_WORTH_THREADS) as pool:
        return list(pool.map(lambda address: read_commit(store, address), addresses))


def list_commits(store: ObjectStore, plan_id: str = "", *, kind: PlanKind | None = None) -> Iterator[ShardAddress]:
    """List the addresses of all records, or those of one plan or kind, ascending, without reading a record.

    Files below commits/ that cannot be records are skipped; `verify` names them.
    """
    for key in store.list(f"commits/{plan_id}/" if plan_id else f"commits/{kind or ''}"):
        with suppress(ValueError):
            yield ShardAddress.of_key(key)


def newest_generations(addresses: Iterable[ShardAddress]) -> list[ShardAddress]:
    """Select the highest generation of each shard: that record is the shard."""
    newest: dict[str, ShardAddress] = {}
    for address in addresses:
        if address.lineage not in newest or newest[address.lineage].generation < address.generation:
            newest[address.lineage] = address
    return sorted(newest.values())


def commit_to_json(commit: Commit) -> bytes:
    """Write a commit record as JSON."""
    fields = asdict(commit)
    del fields["record_sha256"]
    inputs = inputs_to_json(commit.inputs)
    return json_bytes({"format": FORMAT, **fields, "inputs": inputs, "committed_at": commit.committed_at.isoformat()})


def commit_from_json(data: bytes, *, where: str) -> Commit:
    """Read a commit record. `where` names its place in errors.

    Raises:
        Corrupt: The record is torn or malformed.
        StoreError: A newer version wrote it.
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
        fields["committed_at"] = datetime.fromisoformat(fields["committed_at"])
        return Commit(**fields)


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
