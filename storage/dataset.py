"""A dataset: shards of images and masks, the tables over them, and its immutable snapshots.

photographs -> write_images -> commit record -> fold -> tables -> query
image shard -> write_masks  -> commit record -> fold -> tables -> snapshot
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from storage.errors import Conflict, NotFound, StoreError
from storage.formats import documents
from storage.objects import probing
from storage.objects.stores import ObjectStore, open_store
from storage.protocol import cleaning, commits, plans, redo
from storage.protocol.cleaning import CleaningReport
from storage.protocol.commits import Commit
from storage.protocol.inputs import ImageRange, Images, ImageSet, PlanKind, ShardAddress
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Reject
from storage.tables import contents, fold_log, folds, lookup, snapshots, verification
from storage.tables.columns import MASKS
from storage.tables.fold_log import DoneFold
from storage.tables.folds import FoldReport
from storage.tables.limits import QueryLimits, query_limited
from storage.tables.query import query as query_tables
from storage.tables.query import stream_masks
from storage.tables.rebuild import rebuild
from storage.tables.snapshots import Snapshot
from storage.tables.verification import VerifyReport
from storage.tables.withdrawals import mask_pairs, withdraw, withdrawn_masks

_MARKER = "dataset.json"  # written last: a folder with it is a dataset
_MADE_BEFORE_MARKER = ("tables", "folds")  # what a creation that died half-way may have left


@dataclass(frozen=True, kw_only=True)
class PlanStatus:
    """How far a plan is; `missing` names the shards without a commit record."""

    plan_id: str
    kind: PlanKind
    created_at: datetime
    planned: int
    done: int
    missing: tuple[str, ...]


class Dataset:
    """Opened with `Dataset.open`, `Dataset.create` or `Dataset.open_or_create`; many processes may use one at once."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._proven: dict[str, DoneFold] = {}  # by snapshot; proven once by each process
        self._plans: dict[str, Plan] = {}  # they never change, and a large one takes a second to read

    def __repr__(self) -> str:
        return f"Dataset({self.store.uri!r})"

    @property
    def uri(self) -> str:
        """Folder or s3:// address of the dataset."""
        return self.store.uri

    @classmethod
    def create(cls, uri: str | Path) -> "Dataset":
        """A new, empty dataset. Raises StoreError for a place that is taken, foreign, unwritable or unfit."""
        store = open_store(uri)
        _check_free(store)
        probing.probe(store)
        folds.begin(store)
        fields = {
            "format": documents.FORMAT,
            "dataset_id": uuid.uuid4().hex,
            "created_at": datetime.now(UTC).isoformat(),
        }
        store.put_if_absent(_MARKER, documents.json_bytes(fields))
        return cls(store)

    @classmethod
    def open(cls, uri: str | Path) -> "Dataset":
        """Raises NotFound where there is no dataset, StoreError for a newer format, Corrupt for a damaged marker."""
        store = open_store(uri)
        try:
            marker = store.get(_MARKER)
        except NotFound as error:
            raise NotFound(
                f"{store.uri}: no dataset there ({_MARKER} is missing); `gigamask ingest` makes one"
            ) from error
        documents.read_json(marker, "dataset", f"{store.uri}/{_MARKER}")
        return cls(store)

    @classmethod
    def open_or_create(cls, uri: str | Path) -> "Dataset":
        """The dataset there, or a new one; of several creators at a time one creates and all open the same."""
        try:
            return cls.open(uri)
        except NotFound:
            try:
                return cls.create(uri)
            except Conflict:
                return cls.open(uri)

    def new_plan(self, kind: PlanKind | str, shards: Sequence[PlannedShard], settings: Mapping[str, object]) -> Plan:
        """Freezes a plan; the same kind, shards and settings give the plan that is already there. Raises ValueError."""
        plan = plans.put_plan(self.store, plans.make_plan(kind, shards, settings))
        return self._plans.setdefault(plan.plan_id, plan)

    def plan(self, plan_id: str) -> Plan:
        """Raises NotFound, Corrupt."""
        if plan_id not in self._plans:
            self._plans[plan_id] = plans.read_plan(self.store, plan_id)
        return self._plans[plan_id]

    def plans(self) -> list[Plan]:
        """Oldest first."""
        every = (self.plan(plan_id) for plan_id in plans.list_plan_ids(self.store))
        return sorted(every, key=lambda plan: (plan.created_at, plan.plan_id))

    def missing(self, plan: Plan) -> list[PlannedShard]:
        """The plan's shards without a commit record, in the plan's order: what is left to do."""
        done = {(name.shard, name.generation) for name in commits.list_commits(self.store, plan.home)}
        return [shard for shard in plan.shards if (shard.name, shard.generation) not in done]

    def commits(self, plan: Plan, *, given_up: bool = False) -> list[Commit]:
        """Records of the plan's shards, of each the newest generation, by shard; without those closed unmade."""
        planned = {shard.name for shard in plan.shards}
        names = commits.newest_generations(commits.list_commits(self.store, plan.home))
        records = commits.read_commits(self.store, [name for name in names if name.shard in planned])
        return [record for record in records if given_up or record.attempt_id]

    def plan_redo(
        self, plan: Plan, shards: Sequence[str] | None = None, settings: Mapping[str, object] | None = None
    ) -> Plan:
        """A plan for the next generation of finished shards: those named, or all that have rejects.

        Its shards are written like any others; give `inherited=` the record they replace to keep what it holds and only
        add to it. Settings are the plan's own unless given. Raises ValueError where there is nothing to redo.
        """
        return redo.plan_redo(self.store, plan, shards, settings)

    def commit_of(self, address: ShardAddress) -> Commit:
        """The record of a shard. Raises NotFound."""
        return commits.read_commit(self.store, address)

    def previous(self, plan: Plan, shard: PlannedShard) -> Commit:
        """The record that a redone shard replaces. Raises ValueError for generation 0."""
        return commits.read_commit(self.store, plan.address(shard).before)

    def write_images(
        self,
        plan: Plan,
        shard: PlannedShard,
        images: Iterable[tuple[ImageRecord, bytes]],
        rejects: Iterable[Reject] = (),
        *,
        stats: Mapping[str, object] | None = None,
        seconds: float = 0.0,
        inherited: Commit | None = None,
    ) -> Commit:
        """Writes and commits an image shard; images are put in the order of their keys.

        `inherited` is, in a redo, the replaced record whose images stay; rejects are then those that are left.
        Returns the shard's record: this attempt's, or that of another worker that was faster with the same shard.
        Raises ValueError where a record contradicts its bytes, StoreError where the store fails.
        """
        attempt = commits.begin_attempt(self.store, plan, shard)
        contents.put_images(attempt, images, inherited)
        return attempt.commit(rejects=rejects, stats=stats, seconds=seconds, inherited=_parts(inherited))

    def write_masks(
        self,
        plan: Plan,
        shard: PlannedShard,
        images: Iterable[tuple[ImageRecord, Sequence[MaskRecord]]],
        rejects: Iterable[Reject] = (),
        stats: Mapping[str, object] | None = None,
        *,
        model_id: str = "",
        seconds: float = 0.0,
        inherited: Commit | None = None,
    ) -> Commit:
        """Writes and commits a mask shard: `write_images`, for images and their masks. An image may have none."""
        attempt = commits.begin_attempt(self.store, plan, shard)
        contents.put_masks(attempt, images, inherited)
        return attempt.commit(
            rejects=rejects, stats=stats, model_id=model_id, seconds=seconds, inherited=_parts(inherited)
        )

    def withdraw(self, masks: Iterable[tuple[int, int]], reason: str) -> Commit:
        """Takes back masks, given as (image_id, mask_id), by a record of its own; nothing is deleted.

        `masks` and `read_masks` are without them from the next fold on; earlier snapshots keep them. Raises ValueError
        for masks that are not there.
        """
        self.fold()
        commit = withdraw(self.store, fold_log.newest_done(self.store), masks, reason)
        self.fold()
        return commit

    def image_shards(self) -> list[Commit]:
        """Committed image shards, oldest plan first; a mask plan names them by `Commit.address` in its inputs."""
        homes = [plan for plan in self.plans() if plan.kind is PlanKind.IMAGES and not plan.redoes]
        return [commit for plan in homes for commit in self.commits(plan)]

    def read_images(self, images: Commit | Images) -> Iterator[tuple[ImageRecord, bytes]]:
        """Images of a shard (a record or its address), or some of them, streamed, checked. Raises NotFound, Corrupt."""
        if isinstance(images, ImageRange | ImageSet):
            return contents.read_images_at(self.store, self.commit_of(images.shard), images.places)
        return contents.read_images(self.store, self._commit(images))

    def read_masks(
        self, shard: Commit | ShardAddress, *, snapshot: str | None = None
    ) -> Iterator[tuple[ImageRecord, list[MaskRecord]]]:
        """Images and their masks, streamed; an image has only id, key, size and format.

        Without the masks withdrawn by now, or by the time of the snapshot. Raises NotFound, Corrupt.
        """
        done = None if snapshot is None else self._done(snapshot)
        withdrawn = mask_pairs(withdrawn_masks(self.store, done))
        return contents.read_masks(self.store, self._commit(shard), withdrawn)

    def read_mask(self, image_id: int, mask_id: int, *, snapshot: str | None = None) -> MaskRecord:
        """One mask: a row of `masks`, then one range read. Raises NotFound."""
        return lookup.read_mask(self.store, self._done(snapshot), image_id, mask_id)

    def known_image_ids(self) -> dict[int, bytes]:
        """image_id -> SHA-256 (32 bytes) of every committed image, folded or not: how ingest finds duplicates."""
        return lookup.known_image_ids(self.store, fold_log.newest_done(self.store))

    def fold(self) -> FoldReport:
        """Takes new commit records into the tables; anybody may call it at any time."""
        return folds.fold(self.store)

    def rebuild_tables(self) -> FoldReport:
        """Makes the four tables anew from the commit records, whatever state they are in."""
        return rebuild(self.store)

    def clean(self, *, delete: bool = False) -> CleaningReport:
        """Finds, and with `delete` removes, what crashed and beaten attempts left; safe beside live workers."""
        return cleaning.clean(self.store, delete=delete)

    def close(self, plan: Plan) -> list[Commit]:
        """Gives up the plan's missing shards for good: records that nobody will make them."""
        return cleaning.close(self.store, plan)

    def query(self, sql: str, snapshot: str | None = None, *, limits: QueryLimits | None = None) -> pa.Table:
        """SQL (DataFusion's) over images, masks, shards, rejects, as of the newest fold or of a snapshot.

        One statement that reads; the engine's plan of it is checked before it is executed. With `limits`, it is
        executed in a process of its own that may use so much time and memory; without, in this one. Raises
        ValueError, in one line, for SQL that is wrong, would write or exceeds a limit; NotFound for an unknown
        snapshot.
        """
        done = self._done(snapshot)
        if limits is not None:
            return query_limited(self.store, done, sql, limits)
        return query_tables(self.store, done, sql)

    def masks(
        self,
        filter: str = "true",  # noqa: A002 - SQL's word for it, and Arrow's
        columns: Sequence[str] | None = None,
        snapshot: str | None = None,
    ) -> pa.RecordBatchReader:
        """Rows of `masks` for which a SQL condition holds, streamed; `.read_all()` makes a table of them.

        `columns` None: all of them. Raises ValueError for a column or a condition that is wrong, NotFound.
        """
        chosen = list(columns if columns is not None else MASKS.names)
        unknown = [name for name in chosen if name not in MASKS.names]
        if unknown or not chosen:
            raise ValueError(f"columns {unknown or chosen}: expected some of {', '.join(MASKS.names)}")
        return stream_masks(self.store, self._done(snapshot), chosen, filter)

    def masks_of_image(self, image_id: int, snapshot: str | None = None) -> pa.Table:
        """The image's rows of `masks`, found through its shards: fast however many masks there are."""
        return lookup.masks_of_image(self.store, self._done(snapshot), image_id)

    def snapshot(self) -> Snapshot:
        """Folds what is there and names that state for ever."""
        self.fold()
        return snapshots.take_snapshot(self.store, fold_log.newest_done(self.store))

    def snapshots(self) -> list[Snapshot]:
        """Oldest first."""
        return [snapshots.read_snapshot(self.store, each) for each in snapshots.list_snapshots(self.store)]

    def status(self) -> list[PlanStatus]:
        """Every plan, oldest first."""
        return [self._status(plan) for plan in self.plans()]

    def verify(self, *, fast: bool = False) -> VerifyReport:
        """Reads back every byte that a record names, counts it, and compares the tables; `fast` compares sizes only."""
        return verification.verify(self.store, fast=fast)

    def _status(self, plan: Plan) -> PlanStatus:
        missing = tuple(shard.name for shard in self.missing(plan))
        return PlanStatus(
            plan_id=plan.plan_id,
            kind=plan.kind,
            created_at=plan.created_at,
            planned=len(plan.shards),
            done=len(plan.shards) - len(missing),
            missing=missing,
        )

    def _commit(self, shard: Commit | ShardAddress) -> Commit:
        return self.commit_of(shard) if isinstance(shard, ShardAddress) else shard

    def _done(self, snapshot: str | None) -> DoneFold:
        if snapshot is None:
            return fold_log.newest_done(self.store)
        if snapshot not in self._proven:
            found = snapshots.read_snapshot(self.store, snapshot)
            snapshots.prove(self.store, found)
            self._proven[snapshot] = found.done
        return self._proven[snapshot]


def _parts(inherited: Commit | None) -> tuple[commits.Part, ...]:
    return inherited.parts if inherited is not None else ()


def _check_free(store: ObjectStore) -> None:
    for key in store.list(""):
        top = key.partition("/")[0]
        if key == _MARKER:
            raise Conflict(f"{store.uri}: there is a dataset already")
        if top in ("plans", "commits", "data", "snapshots"):
            raise StoreError(f"{store.uri}: holds {top}/ but no {_MARKER}: a dataset copied in part; copy it again")
        if top not in _MADE_BEFORE_MARKER:
            raise StoreError(f"{store.uri}: not empty and no dataset ({key} is there); choose an empty or a new folder")
