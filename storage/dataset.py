"""A dataset: shards of images and masks, the tables over them, and its immutable snapshots.

photos      -> write_images -> commit record -> fold -> tables -> query
image shard -> write_masks  -> commit record -> fold -> tables -> snapshot

`Dataset` holds what is used daily; its namespaces hold the rest: `dataset.models` and `dataset.maintenance`.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from storage.errors import Conflict, NotFound, StoreError
from storage.formats import documents
from storage.maintenance import Maintenance
from storage.model_versions import ModelVersions
from storage.objects import probing
from storage.objects.stores import ObjectStore, open_store
from storage.protocol import commits, plans
from storage.protocol.commits import Commit
from storage.protocol.inputs import ImageRange, Images, ImageSet, PlanKind, ShardAddress
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Reject
from storage.tables import contents, fold_log, folds, lookup, snapshots
from storage.tables.columns import MASKS
from storage.tables.fold_log import DoneFold
from storage.tables.folds import FoldReport
from storage.tables.limits import QueryLimits, query_limited
from storage.tables.query import query as query_tables
from storage.tables.query import stream_masks
from storage.tables.snapshots import Snapshot
from storage.tables.withdrawals import mask_pairs, withdraw, withdrawn_masks

_MARKER = "dataset.json"
"""Key of the file that makes a folder a dataset; creation writes it last."""
_CREATED_BEFORE_MARKER = ("tables", "folds")
"""Folders that a creation may leave when it dies half-way."""


@dataclass(frozen=True, kw_only=True)
class PlanStatus:
    """Progress of a plan."""

    plan_id: str
    """Id of the plan."""
    kind: PlanKind
    """What the plan's shards hold."""
    created_at: datetime
    """Time of the plan's creation, UTC."""
    planned: int
    """Number of shards in the plan."""
    done: int
    """Number of shards with a commit record."""
    missing: tuple[str, ...]
    """Names of the shards without a commit record."""


class Dataset:
    """A dataset in a folder or under an S3 prefix; many processes may use it at once.

    Obtained from `Dataset.open`, `Dataset.create` or `Dataset.open_or_create`.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._proven: dict[str, DoneFold] = {}  # by snapshot id: each process proves a snapshot once
        self._plans: dict[str, Plan] = {}  # by plan id: plans never change, and a large one takes a second to read

    def __repr__(self) -> str:
        return f"Dataset({self.store.uri!r})"

    @property
    def uri(self) -> str:
        """Folder or s3:// address of the dataset."""
        return self.store.uri

    @property
    def models(self) -> ModelVersions:
        """Namespace of the model versions that belong to the dataset: publish, list, fetch."""
        return ModelVersions(self.store)

    @property
    def maintenance(self) -> Maintenance:
        """Namespace of the dataset's upkeep: redo and close shards, clean, verify, rebuild the tables."""
        return Maintenance(self.store)

    @classmethod
    def create(cls, uri: str | Path) -> "Dataset":
        """Create an empty dataset in a folder or under an s3:// address.

        Raises:
            Conflict: There is a dataset already.
            StoreError: The place holds other files, cannot be written, or has no working put-if-absent.
            ValueError: The address has an unknown form.
        """
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
        """Open the dataset in a folder or under an s3:// address.

        Raises:
            NotFound: There is no dataset.
            StoreError: A newer version wrote it, or the store fails.
            Corrupt: Its marker, dataset.json, is damaged.
            ValueError: The address has an unknown form.
        """
        store = open_store(uri)
        try:
            marker = store.get(_MARKER)
        except NotFound as error:
            raise NotFound(
                f"{store.uri}: no dataset there ({_MARKER} is missing); `gigamask ingest` creates one"
            ) from error
        documents.read_json(marker, "dataset", f"{store.uri}/{_MARKER}")
        return cls(store)

    @classmethod
    def open_or_create(cls, uri: str | Path) -> "Dataset":
        """Open the dataset, or create it; of several processes that create it at once, one does and all open it.

        Raises:
            StoreError: As `open` and `create` raise it.
        """
        try:
            return cls.open(uri)
        except NotFound:
            try:
                return cls.create(uri)
            except Conflict:
                return cls.open(uri)

    def new_plan(self, kind: PlanKind | str, shards: Sequence[PlannedShard], settings: Mapping[str, object]) -> Plan:
        """Store a plan; the same kind, shards and settings give the plan that is already stored.

        Raises:
            ValueError: An unknown kind, inputs of another kind, or bad or repeated shard names.
        """
        plan = plans.put_plan(self.store, plans.make_plan(kind, shards, settings))
        return self._plans.setdefault(plan.plan_id, plan)

    def plan(self, plan_id: str) -> Plan:
        """Read a plan.

        Raises:
            NotFound: There is no such plan.
            Corrupt: Its file is damaged.
        """
        if plan_id not in self._plans:
            self._plans[plan_id] = plans.read_plan(self.store, plan_id)
        return self._plans[plan_id]

    def plans(self) -> list[Plan]:
        """Read all plans, oldest first."""
        every = (self.plan(plan_id) for plan_id in plans.list_plan_ids(self.store))
        return sorted(every, key=lambda plan: (plan.created_at, plan.plan_id))

    def missing(self, plan: Plan) -> list[PlannedShard]:
        """List the plan's shards without a commit record, in the plan's order: what is left to do."""
        done = {(name.shard, name.generation) for name in commits.list_commits(self.store, plan.home)}
        return [shard for shard in plan.shards if (shard.name, shard.generation) not in done]

    def commits(self, plan: Plan, *, given_up: bool = False) -> list[Commit]:
        """Read the newest record of each of the plan's shards, ordered by shard.

        Args:
            plan: The plan of the shards.
            given_up: Whether to include the records of shards that were closed unmade.
        """
        planned = {shard.name for shard in plan.shards}
        names = commits.newest_generations(commits.list_commits(self.store, plan.home))
        records = commits.read_commits(self.store, [name for name in names if name.shard in planned])
        return [record for record in records if given_up or record.attempt_id]

    def commit_of(self, address: ShardAddress) -> Commit:
        """Read the record of a shard.

        Raises:
            NotFound: There is none.
            Corrupt: It is damaged.
        """
        return commits.read_commit(self.store, address)

    def previous(self, plan: Plan, shard: PlannedShard) -> Commit:
        """Read the record that a redone shard replaces.

        Raises:
            ValueError: The shard is of generation 0, which replaces none.
        """
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
        """Write and commit an image shard; its images are stored in the order of their keys.

        Args:
            plan: The plan that holds the shard.
            shard: The shard to write.
            images: Records and the encoded bytes that they describe.
            rejects: Inputs that could not be used; in a redo, those that still cannot.
            stats: Diagnostics of the stage, as JSON values.
            seconds: Time of the work.
            inherited: In a redo, the replaced record, to keep its images; None: keep none.

        Returns:
            The shard's record: this attempt's, or that of another worker which committed the same shard first.

        Raises:
            ValueError: A record contradicts its bytes.
            StoreError: The store fails.
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
        """Write and commit a mask shard, as `write_images` does an image shard; an image may have no masks.

        Raises:
            ValueError: A mask contradicts its image.
            StoreError: The store fails.
        """
        attempt = commits.begin_attempt(self.store, plan, shard)
        contents.put_masks(attempt, images, inherited)
        return attempt.commit(
            rejects=rejects, stats=stats, model_id=model_id, seconds=seconds, inherited=_parts(inherited)
        )

    def withdraw(self, masks: Iterable[tuple[int, int]], reason: str) -> Commit:
        """Withdraw masks, given as (image_id, mask_id), by a commit record of their own; nothing is deleted.

        Tables and `read_masks` leave them out from then on; earlier snapshots keep them.

        Raises:
            ValueError: A mask is not in the tables.
        """
        self.fold()
        commit = withdraw(self.store, fold_log.newest_done(self.store), masks, reason)
        self.fold()
        return commit

    def image_shards(self) -> list[Commit]:
        """Read the records of all image shards, oldest plan first; a mask plan's inputs name their `address`."""
        homes = [plan for plan in self.plans() if plan.kind is PlanKind.IMAGES and not plan.redoes]
        return [commit for plan in homes for commit in self.commits(plan)]

    def is_there(self, shard: Commit) -> bool:
        """Whether all objects of a shard are there, of the size that its record states; reads none."""
        return contents.is_there(self.store, shard)

    def read_images(self, images: Commit | Images) -> Iterator[tuple[ImageRecord, bytes]]:
        """Stream the images of a shard, or some of them, each checked against its SHA-256.

        Args:
            images: The shard's record or address, or a range or set of its images.

        Raises:
            NotFound: There is no such shard.
            Corrupt: Stored bytes are damaged.
            ValueError: The shard has no images at these places.
        """
        if isinstance(images, ImageRange | ImageSet):
            return contents.read_images_at(self.store, self.commit_of(images.shard), images.places)
        return contents.read_images(self.store, self._commit(images))

    def read_masks(
        self, shard: Commit | ShardAddress, *, snapshot: str | None = None
    ) -> Iterator[tuple[ImageRecord, list[MaskRecord]]]:
        """Stream the images of a mask shard with their masks; of an image only id, key, size and format are known.

        Args:
            shard: The shard's record or address.
            snapshot: Leave out the masks that were withdrawn by the time of this snapshot; None: by now.

        Raises:
            NotFound: There is no such shard or snapshot.
            Corrupt: Stored bytes are damaged.
        """
        done = None if snapshot is None else self._done(snapshot)
        withdrawn = mask_pairs(withdrawn_masks(self.store, done))
        return contents.read_masks(self.store, self._commit(shard), withdrawn)

    def read_mask(self, image_id: int, mask_id: int, *, snapshot: str | None = None) -> MaskRecord:
        """Read one mask, by its row of `masks` and one range read.

        Raises:
            NotFound: There is no such mask or snapshot.
            Corrupt: Stored bytes are damaged.
        """
        return lookup.read_mask(self.store, self._done(snapshot), image_id, mask_id)

    def known_image_ids(self) -> dict[int, bytes]:
        """Map image_id to the SHA-256 (32 bytes) of the photo of every committed image, folded or not.

        Ingest finds duplicates by it.
        """
        return lookup.known_image_ids(self.store, fold_log.newest_done(self.store))

    def fold(self) -> FoldReport:
        """Take new commit records into the tables; any process may call it at any time."""
        return folds.fold(self.store)

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
        """Read the rows of `masks` of one image, found through its shards: fast however many masks there are."""
        return lookup.masks_of_image(self.store, self._done(snapshot), image_id)

    def snapshot(self) -> Snapshot:
        """Fold all commit records and name that state for good; the same state gives the same snapshot."""
        self.fold()
        return snapshots.take_snapshot(self.store, fold_log.newest_done(self.store))

    def snapshots(self) -> list[Snapshot]:
        """Read all snapshots, oldest first."""
        return [snapshots.read_snapshot(self.store, each) for each in snapshots.list_snapshots(self.store)]

    def status(self) -> list[PlanStatus]:
        """Report the progress of every plan, oldest first."""
        return [self._status(plan) for plan in self.plans()]

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
        if top not in _CREATED_BEFORE_MARKER:
            raise StoreError(f"{store.uri}: not empty and no dataset ({key} is there); choose an empty or a new folder")
