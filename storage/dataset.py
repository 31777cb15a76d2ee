"""A dataset: shards of images and masks, the tables over them, and its immutable snapshots.

photos      -> write_images -> commit record -> fold -> tables -> query
image shard -> write_masks  -> commit record -> fold -> tables -> snapshot

`Dataset` has the methods for daily use. `dataset.models` has those for model versions, `dataset.promotions` those for
the promoted model, `dataset.maintenance` those for upkeep.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from storage.errors import Conflict, NotFound, StoreError
from storage.maintenance import Maintenance
from storage.marker import MARKER, put_marker, read_marker
from storage.model_versions import ModelVersions
from storage.objects import probing
from storage.objects.stores import ObjectStore, open_store
from storage.progress import RECORDS, OnPhase, silent
from storage.protocol import commits, plans
from storage.protocol.commits import Commit
from storage.protocol.erasures import Erasures, read_erasures
from storage.protocol.handovers import Handovers
from storage.protocol.inputs import ImageRange, Images, ImageSet, PlanKind, ShardAddress
from storage.protocol.plans import Plan, PlannedShard
from storage.protocol.promotions import Promotions
from storage.protocol.releases import Releases
from storage.protocol.turns import turn_at
from storage.records import ImageRecord, MaskRecord, Reject
from storage.tables import contents, erasing, fold_log, folds, lookup, places, snapshots
from storage.tables.columns import MASKS
from storage.tables.duplicates import Duplicates, duplicates_in
from storage.tables.fold_log import DoneFold
from storage.tables.folds import FoldReport
from storage.tables.limits import QueryLimits, query_limited
from storage.tables.query import query as query_tables
from storage.tables.query import stream_masks
from storage.tables.snapshots import Snapshot
from storage.tables.withdrawals import mask_pairs, rows_to_withdraw, withdraw, withdrawn_masks

_CREATED_BEFORE_MARKER = ("tables", "folds", "probes")
"""Folders that `Dataset.create` may leave behind when it dies half-way."""


@dataclass(frozen=True, kw_only=True)
class PlanStatus:
    """Progress of a plan: how many of its shards are done, and which are missing."""

    plan_id: str
    """Id of the plan."""
    kind: PlanKind
    """Kind of records in the plan's shards: images, masks, withdrawals or erasures."""
    created_at: datetime
    """Time of the plan's creation, UTC."""
    planned: int
    """Number of shards in the plan."""
    done: int
    """Number of shards that were made."""
    missing: tuple[str, ...]
    """Names of the shards without a commit record, which the same command makes."""
    given_up: tuple[str, ...]
    """Names of the shards that `gc --close` gave up and no redo has made since. They count neither as done nor as
    missing. A redo that was given up keeps the content of the generation before.
    """


class Dataset:
    """A dataset in a folder or under an S3 prefix; many processes may use it at once.

    `Dataset.open`, `Dataset.create` and `Dataset.open_or_create` return a Dataset.
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
        """Methods for the dataset's model versions: publish, list and fetch them."""
        return ModelVersions(self.store)

    @property
    def promotions(self) -> Promotions:
        """Methods for the chain of decisions about the dataset's promoted model."""
        return Promotions(self.store)

    @property
    def handovers(self) -> Handovers:
        """Methods for the hand-overs between the steps of flows."""
        return Handovers(self.store)

    @property
    def releases(self) -> Releases:
        """Methods for the records of the dataset's releases."""
        return Releases(self.store)

    @property
    def maintenance(self) -> Maintenance:
        """Methods for the dataset's upkeep: redo and close shards, clean, verify, rebuild the tables."""
        return Maintenance(self.store)

    @classmethod
    def create(cls, uri: str | Path) -> "Dataset":
        """Create an empty dataset in a folder or under an s3:// address.

        Raises:
            Conflict: There is a dataset already.
            StoreError: The place holds other files, cannot be written, or cannot create a file only if it is absent.
            ValueError: The address has an unknown form.
        """
        store = open_store(uri)
        is_left = _check_free(store)
        try:
            probing.probe(store)
            folds.begin(store)
        except StoreError as error:
            if not is_left:
                raise
            raise StoreError(
                f"{store.uri}: the creation of a dataset was cut off there, and what it left cannot be used ({error}); "
                f"delete {', '.join(f'{top}/' for top in _CREATED_BEFORE_MARKER)} in it, which hold nothing yet, and "
                "run the same command again"
            ) from error
        put_marker(store)
        return cls(store)

    @classmethod
    def check_place(cls, uri: str | Path) -> None:
        """Check that there is a dataset, or that one can be created there; nothing is written.

        Raises:
            StoreError: The place holds other files, a newer version wrote the dataset, or the store fails.
            Corrupt: The file dataset.json, which marks the folder as a dataset, is damaged.
            ValueError: The address has an unknown form.
        """
        try:
            cls.open(uri)
        except NotFound:
            with suppress(Conflict):  # created in the meantime
                _check_free(open_store(uri))

    @classmethod
    def open(cls, uri: str | Path) -> "Dataset":
        """Open the dataset in a folder or under an s3:// address.

        Raises:
            NotFound: There is no dataset.
            StoreError: A newer version wrote it, or the store fails.
            Corrupt: The file dataset.json, which marks the folder as a dataset, is damaged.
            ValueError: The address has an unknown form.
        """
        store = open_store(uri)
        read_marker(store)
        probing.probe_before_first_put(store)
        return cls(store)

    @classmethod
    def open_or_create(cls, uri: str | Path) -> "Dataset":
        """Open the dataset, or create it where there is none.

        Several processes may call this at once; all of them open the same dataset.

        Raises:
            StoreError: The place holds other files or cannot be written, a newer version wrote the dataset, or the
                store fails.
            Corrupt: The file dataset.json, which marks the folder as a dataset, is damaged.
            ValueError: The address has an unknown form.
        """
        try:
            return cls.open(uri)
        except NotFound:
            try:
                return cls.create(uri)
            except Conflict:
                return cls.open(uri)

    def new_plan(self, kind: PlanKind | str, shards: Sequence[PlannedShard], settings: Mapping[str, object]) -> Plan:
        """Store a plan and return it.

        If a plan with the same kind, shards and settings is already stored, that plan is returned.

        Raises:
            ValueError: The kind is unknown, a shard has inputs that this kind does not take, or shard names are
                malformed or repeated.
        """
        plan = plans.put_plan(self.store, plans.make_plan(kind, shards, settings))
        return self._plans.setdefault(plan.plan_id, plan)

    def plan(self, plan_id: str) -> Plan:
        """Read a plan.

        Raises:
            NotFound: There is no such plan.
            Corrupt: The plan's file is damaged.
        """
        if plan_id not in self._plans:
            self._plans[plan_id] = plans.read_plan(self.store, plan_id)
        return self._plans[plan_id]

    def plans(self) -> list[Plan]:
        """Read all plans, oldest first."""
        every = (self.plan(plan_id) for plan_id in plans.list_plan_ids(self.store))
        return sorted(every, key=lambda plan: (plan.created_at, plan.plan_id))

    def missing(self, plan: Plan) -> list[PlannedShard]:
        """List the plan's shards that have no commit record yet, in the plan's order.

        A shard that was given up has a record and is not missing.
        """
        done = {(name.shard, name.generation) for name in commits.list_commits(self.store, plan.home)}
        return [shard for shard in plan.shards if (shard.name, shard.generation) not in done]

    def turn(self, plan: Plan, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Have the turn at a plan for the length of a `with` block; see `storage.protocol.turns`.

        Args:
            plan: The plan to make shards of.
            on_wait: Function that is called once if another process of this machine makes them, before waiting for it.
        """
        return turn_at(self.store, plan, on_wait)

    def commits(self, plan: Plan, *, given_up: bool = False) -> list[Commit]:
        """Read the newest commit record of each finished shard of a plan, in the plan's order.

        Args:
            plan: The plan of the shards.
            given_up: Whether to include the records of shards that were given up before any attempt made them.
        """
        names = commits.newest_generations(commits.list_commits(self.store, plan.home))
        by_shard = {name.shard: name for name in names}
        records = commits.read_commits(
            self.store, [by_shard[shard.name] for shard in plan.shards if shard.name in by_shard]
        )
        return [record for record in records if given_up or record.attempt_id]

    def commit_of(self, address: ShardAddress) -> Commit:
        """Read the record of a shard.

        Raises:
            NotFound: The shard has no record.
            Corrupt: The record is damaged.
        """
        return commits.read_commit(self.store, address)

    def previous(self, plan: Plan, shard: PlannedShard) -> Commit:
        """Read the commit record of the previous generation, which a redone shard replaces.

        Raises:
            ValueError: The shard is of generation 0 and has no previous generation.
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
        attempt_id: str | None = None,
    ) -> Commit:
        """Write and commit an image shard. The images are stored in the order of their keys.

        Args:
            plan: The plan that holds the shard.
            shard: The shard to write.
            images: Records and the encoded bytes that they describe.
            rejects: Inputs that could not be used; in a redo, those that still cannot be used.
            stats: Diagnostics of the stage, as JSON values.
            seconds: Time that the work took, in seconds.
            inherited: In a redo, the record to replace; the new shard keeps the images of that record. None keeps no
                earlier images.
            attempt_id: Id of this attempt, from `new_attempt_id`, by which the record tells who won; None makes one.

        Returns:
            The stored record of the shard: the record of another worker where that worker committed the shard first.

        Raises:
            ValueError: A record contradicts its bytes.
            StoreError: The store fails.
        """
        attempt = commits.begin_attempt(self.store, plan, shard, attempt_id=attempt_id)
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
        attempt_id: str | None = None,
    ) -> Commit:
        """Write and commit a shard of masks or amendments.

        An amendment withdraws the masks that are inputs of its shard; the plan's setting `reason` says why. One fold
        removes these masks from the table `masks` and adds those of the shard.

        Args:
            plan: The plan that holds the shard.
            shard: The shard to write.
            images: Records of the images, each with its masks; an image may have no masks.
            rejects: Inputs that could not be used; in a redo, those that still cannot be used.
            stats: Diagnostics of the stage, as JSON values.
            model_id: Id of the model version that made the masks; empty where no model did.
            seconds: Time that the work took, in seconds.
            inherited: In a redo, the record to replace; the new shard keeps the masks of that record. None keeps no
                earlier masks.
            attempt_id: Id of this attempt, from `new_attempt_id`, by which the record tells who won; None makes one.

        Returns:
            The stored record of the shard: the record of another worker where that worker committed the shard first.

        Raises:
            ValueError: A mask contradicts its image, or a mask to withdraw is not in the tables.
            StoreError: The store fails.
        """
        attempt = commits.begin_attempt(self.store, plan, shard, attempt_id=attempt_id)
        if plan.kind is PlanKind.AMENDMENTS:
            done = fold_log.newest_done(self.store)
            contents.put_withdrawn(attempt, rows_to_withdraw(self.store, done, plan, shard))
        contents.put_masks(attempt, images, inherited)
        return attempt.commit(
            rejects=rejects, stats=stats, model_id=model_id, seconds=seconds, inherited=_parts(inherited)
        )

    def write_annotated_masks(
        self,
        plan: Plan,
        shard: PlannedShard,
        images: Iterable[tuple[ImageRecord, Sequence[MaskRecord]]],
        annotations: pa.Table,
        rejects: Iterable[Reject] = (),
        stats: Mapping[str, object] | None = None,
    ) -> Commit:
        """Write and commit a shard of masks or amendments that annotators made, with the facts about their work.

        An amendment withdraws those of its inputs' masks that the tables still hold. Others may have withdrawn or
        erased some of them since the shard was planned.

        Args:
            plan: The plan that holds the shard.
            shard: The shard to write.
            images: Records of the images, each with its masks; an image may have no masks.
            annotations: Rows with the columns `storage.tables.columns.ANNOTATIONS`.
            rejects: Images whose masks could not be stored.
            stats: Diagnostics of the stage, as JSON values.

        Returns:
            The stored record of the shard: the record of another process where that process committed the shard first.

        Raises:
            ValueError: A mask contradicts its image, or the rows have other columns.
            StoreError: The store fails.
        """
        attempt = commits.begin_attempt(self.store, plan, shard)
        if plan.kind is PlanKind.AMENDMENTS:
            done = fold_log.newest_done(self.store)
            contents.put_withdrawn(attempt, rows_to_withdraw(self.store, done, plan, shard, may_be_gone=True))
        contents.put_masks(attempt, images)
        contents.put_annotations(attempt, annotations)
        return attempt.commit(rejects=rejects, stats=stats)

    def withdraw(self, masks: Iterable[tuple[int, int]], reason: str, *, on_progress: OnPhase = silent) -> Commit:
        """Withdraw masks with a new commit record; nothing is deleted.

        The tables and `read_masks` leave the withdrawn masks out from then on. Earlier snapshots keep these masks.

        Args:
            masks: Pairs (image_id, mask_id).
            reason: Reason, which is stored in the record.
            on_progress: Function that is called now and then with how much is done.

        Raises:
            ValueError: A mask is not in the tables.
        """
        self.fold(on_records=lambda done, total: on_progress(done, total, RECORDS))
        done = fold_log.newest_done(self.store)
        commit = withdraw(self.store, done, masks, reason, on_progress=on_progress)
        self.fold(on_records=lambda done, total: on_progress(done, total, RECORDS))
        return commit

    def erase(self, image_ids: Iterable[int], reason: str, *, on_progress: OnPhase = silent) -> Commit:
        """Erase images for good: their bytes and those of their masks become zeros in every shard, old ones included.

        The images leave the tables, no reader returns them any more, and no ingest takes their photos again. The commit
        record, which is returned, is stored before anything is overwritten. If this call dies, the same call, the next
        fold or `finish_erasures` completes it.

        Args:
            image_ids: Ids of the images.
            reason: Reason, which is stored in the record.
            on_progress: Function that is called now and then with how much is done.

        Raises:
            ValueError: The dataset does not hold an image.
            StoreError: The store fails.
        """
        commit = erasing.erase(self.store, image_ids, reason, on_progress=on_progress)
        self.fold(on_records=lambda done, total: on_progress(done, total, RECORDS))
        return commit

    def erasures(self) -> Erasures:
        """Read which images were erased, and in which objects."""
        return read_erasures(self.store)

    def image_shards(self) -> list[Commit]:
        """Read the newest commit record of every image shard.

        The records are ordered by plan, the oldest plan first, and within a plan in the plan's order. A shard that was
        given up before any attempt made it is left out.
        """
        images = [plan for plan in self.plans() if plan.kind is PlanKind.IMAGES and not plan.redoes]
        records = {commit.address: commit for plan in images for commit in self.commits(plan)}
        return list(records.values())  # plans of the same settings may have shards in common

    def is_there(self, shard: Commit) -> bool:
        """Check whether all objects of a shard are stored with the SHA-256 that the shard's record states."""
        return contents.is_there(self.store, shard)

    def read_images(self, images: Commit | Images) -> Iterator[tuple[ImageRecord, bytes]]:
        """Stream all or some images of a shard; each image is checked against its SHA-256. Erased images are left out.

        Args:
            images: The shard's record or address, or a range or set of its images.

        Raises:
            NotFound: There is no such shard.
            Corrupt: Stored bytes are damaged.
            ValueError: The shard has no image at a place of the range or set.
        """
        if isinstance(images, ImageRange | ImageSet):
            return contents.read_images_at(self.store, self.commit_of(images.shard), images.places)
        return contents.read_images(self.store, self._commit(images))

    def read_masks(
        self, shard: Commit | ShardAddress, *, snapshot: str | None = None
    ) -> Iterator[tuple[ImageRecord, list[MaskRecord]]]:
        """Stream the images of a mask shard, each with its masks.

        The image records hold only id, key, size and format. Erased images are left out.

        Args:
            shard: The shard's record or address.
            snapshot: State whose withdrawn masks are left out; None for the present state.

        Raises:
            NotFound: There is no such shard or snapshot.
            Corrupt: Stored bytes are damaged.
        """
        done = None if snapshot is None else self._done(snapshot)
        withdrawn = mask_pairs(withdrawn_masks(self.store, done))
        return contents.read_masks(self.store, self._commit(shard), withdrawn)

    def read_mask(self, image_id: int, mask_id: int, *, snapshot: str | None = None) -> MaskRecord:
        """Read one mask: find its row in the table `masks`, then read only that mask's bytes.

        Raises:
            Erased: The image was erased.
            NotFound: There is no such mask or snapshot.
            Corrupt: Stored bytes are damaged.
        """
        read_erasures(self.store).check(image_id)
        return lookup.read_mask(self.store, self._done(snapshot), image_id, mask_id)

    def known_image_ids(self) -> dict[int, bytes]:
        """Map the image_id of every committed image to the SHA-256 of the photo it was made from (32 bytes).

        Images that are not folded yet are included. Ingest finds duplicate photos with this map.
        """
        return lookup.known_image_ids(self.store, fold_log.newest_done(self.store))

    def image_addresses(self) -> list[ShardAddress]:
        """Addresses of all image shards, in ascending order. No commit record is read."""
        return list(commits.list_commits(self.store, kind=PlanKind.IMAGES))

    def image_ids_of(self, shards: Sequence[ShardAddress]) -> dict[int, bytes]:
        """Map image ids to the SHA-256 of the photo that the image was made from (32 bytes).

        Args:
            shards: Addresses of the image shards whose images are mapped.
        """
        return lookup.image_ids_of(self.store, shards)

    def image_ids_in(self, shard: Commit) -> list[int]:
        """Read the ids of an image shard's images, in the order of their places."""
        return lookup.image_ids_in(self.store, shard)

    def duplicates(self) -> Duplicates:
        """Map shards, as `<plan>/<shard>`, to the image ids whose copies or masks stay out of the tables.

        Shards that were folded earlier hold these images, or masks of them with the same settings.
        """
        return duplicates_in(self.store, fold_log.newest_done(self.store))

    def fold(self, *, on_records: Callable[[int, int], None] = lambda done, total: None) -> FoldReport:
        """Take new commit records into the tables. Any process may call this at any time.

        Args:
            on_records: Function that is called now and then, with the numbers of records taken and of all that waited.
        """
        return folds.fold(self.store, on_records=on_records)

    def query(self, sql: str, snapshot: str | None = None, *, limits: QueryLimits | None = None) -> pa.Table:
        """Query the tables images, masks, shards and rejects with one SQL statement that only reads.

        The dialect is DataFusion's. A statement that would write is refused before it is executed.

        Args:
            sql: The statement.
            snapshot: Name of the snapshot to query; None for the newest fold.
            limits: Time and memory of the separate process that executes the statement; None executes it in this
                process, without limits.

        Raises:
            ValueError: The SQL is wrong, would write or exceeds a limit; the message is one line.
            NotFound: There is no such snapshot.
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
        """Stream the rows of the table `masks` for which a SQL condition holds.

        `.read_all()` of the returned reader gives all rows as one table.

        Args:
            filter: The SQL condition.
            columns: Names of the columns to read; None for all columns.
            snapshot: Name of the snapshot to read; None for the newest fold.

        Raises:
            ValueError: A column is unknown, or the condition is wrong.
            NotFound: There is no such snapshot.
        """
        chosen = list(columns if columns is not None else MASKS.names)
        unknown = [name for name in chosen if name not in MASKS.names]
        if unknown or not chosen:
            raise ValueError(f"columns {unknown or chosen}: expected some of {', '.join(MASKS.names)}")
        return stream_masks(self.store, self._done(snapshot), chosen, filter)

    def masks_of_image(self, image_id: int, snapshot: str | None = None) -> pa.Table:
        """Read the rows of one image in the table `masks`; fast in a dataset of any size.

        Raises:
            Erased: The image was erased.
            NotFound: There is no such snapshot.
        """
        read_erasures(self.store).check(image_id)
        return lookup.masks_of_image(self.store, self._done(snapshot), image_id)

    def snapshot(self, *, on_records: Callable[[int, int], None] = lambda done, total: None) -> Snapshot:
        """Fold all commit records, and store the state of the tables as a snapshot, which never changes.

        For the same state of the tables, the same snapshot is returned.

        Args:
            on_records: As for `fold`.
        """
        self.fold(on_records=on_records)
        return snapshots.take_snapshot(self.store, fold_log.newest_done(self.store))

    def snapshots(self) -> list[Snapshot]:
        """Read all snapshots, oldest first."""
        return [snapshots.read_snapshot(self.store, each) for each in snapshots.list_snapshots(self.store)]

    def status(self) -> list[PlanStatus]:
        """Report the progress of every plan, oldest first."""
        named = set(commits.list_commits(self.store))
        given_up = lookup.given_up(self.store, fold_log.newest_done(self.store), named)
        made = {address.lineage: address.generation for address in sorted(named - given_up)}
        return [_status_of(plan, named, given_up, made) for plan in self.plans()]

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


def _status_of(
    plan: Plan, named: Collection[ShardAddress], given_up: Collection[ShardAddress], made: Mapping[str, int]
) -> PlanStatus:
    """Count the shards of a plan.

    Args:
        plan: The plan.
        named: Addresses of all records.
        given_up: Addresses of the records that gave up a shard.
        made: Newest generation of each shard that was made, by lineage.
    """
    closed = tuple(
        shard.name
        for shard in plan.shards
        if (address := plan.address(shard)) in given_up and made.get(address.lineage, -1) < address.generation
    )
    missing = tuple(shard.name for shard in plan.shards if plan.address(shard) not in named)
    return PlanStatus(
        plan_id=plan.plan_id,
        kind=plan.kind,
        created_at=plan.created_at,
        planned=len(plan.shards),
        done=len(plan.shards) - len(missing) - len(closed),
        missing=missing,
        given_up=closed,
    )


def _parts(inherited: Commit | None) -> tuple[commits.Part, ...]:
    return inherited.parts if inherited is not None else ()


def _check_free(store: ObjectStore) -> bool:
    """Check that a dataset can be created; return whether a creation that was cut off has left something.

    Raises:
        Conflict: There is a dataset already.
        StoreError: The place holds other files, or its path cannot hold tables.
    """
    is_left = False
    for key in store.list(""):
        top = key.partition("/")[0]
        if key == MARKER:
            raise Conflict(f"{store.uri}: there is a dataset already")
        if top in ("plans", "commits", "data", "snapshots"):
            raise StoreError(f"{store.uri}: holds {top}/ but no {MARKER}: a dataset copied in part; copy it again")
        if top not in _CREATED_BEFORE_MARKER:
            raise StoreError(f"{store.uri}: not empty and no dataset ({key} is there); choose an empty or a new folder")
        is_left = True
    places.check_place(store.uri)
    return is_left
