"""Read a dataset back as a stranger would: every file, every object a record names, its counts, and the tables.

Records of replaced generations count too: snapshots, and shards planned from them, read their objects. The tables are
compared with the records that the newest done fold took.

Shards are checked chunk by chunk: records, then objects, then rows. Memory holds one chunk and some hundred bytes for
each record.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from storage.formats.documents import json_bytes
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, Part, list_commits
from storage.protocol.erasures import Erasures, read_erasures
from storage.protocol.handovers import is_handover_key
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.protocol.plans import is_plan_key, list_plan_ids, read_plan
from storage.protocol.promotions import Promotions, is_promotion_key
from storage.protocol.releases import Release, Releases, is_release_key
from storage.tables.fold_log import DoneFold, is_fold_key, newest_done
from storage.tables.snapshots import is_snapshot_key
from storage.verification.chunks import Lineage, read_chunks
from storage.verification.erasure_checks import check_unnamed_tars
from storage.verification.faults import Fault, Faults
from storage.verification.fold_log_checks import read_fold_log
from storage.verification.journal import Journal
from storage.verification.object_checks import check_parts
from storage.verification.snapshot_checks import check_snapshots
from storage.verification.table_checks import TableChecks

_THREADS = 16
"""Objects read at a time; over a network each answer takes some milliseconds."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """Numbers of what was checked, and each fault found.

    `images` and `masks` count those in the newest generation of each shard. `withdrawn` counts the masks that
    withdrawals name.
    """

    plans: int
    records: int
    objects: int
    nbytes: int
    images: int
    masks: int
    withdrawn: int
    faults: tuple[Fault, ...]
    erased: int = 0
    """Number of images that erasures name."""
    unproven: tuple[str, ...] = ()
    """Files of folds/ and snapshots/ that an earlier format wrote without proofs of their tables: a later change of
    these tables would not be noticed. The next fold, or `gigamask rebuild`, and a new snapshot have proofs.
    """


@dataclass(frozen=True, kw_only=True)
class VerifyProgress:
    """How far a check is."""

    records: int
    """Commit records whose objects are checked."""
    records_total: int
    nbytes: int
    """Size of these objects."""
    faults: int


def verify(
    store: ObjectStore,
    *,
    fast: bool = False,
    on_progress: Callable[[VerifyProgress], None] = lambda progress: None,
    journal: Journal | None = None,
) -> VerifyReport:
    """Check the stored objects and the tables against the commit records. A fault does not end the check.

    Args:
        store: The store of the dataset.
        fast: Whether to compare only the sizes of objects; otherwise every byte is read.
        on_progress: Function that is called now and then.
        journal: What an interrupted check found sound, which is not read again; with `fast` it is not used.
    """
    # Files, plans, and the log of folds
    faults = Faults()
    _check_names(store, faults)
    plan_ids = _check_plans(store, faults)
    named = _list_records(store, faults)
    log = read_fold_log(store, faults)
    checks = _ChunkChecks(store, faults, on_progress, None if fast else journal, len(named))
    made_by: set[str] = set()
    with faults.guard("promotions/", "restore the folder promotions/ from a copy"):
        Promotions(store).history()
    _check_releases(store, faults)
    with faults.guard("commits/", "restore the records of the erasures from a copy"):
        checks.erasures = read_erasures(store)
    with faults.guard("folds/", "restore folds/ from a copy, or run `gigamask rebuild`"):
        checks.begin_tables(newest_done(store), named)

    # Records, their objects and rows; then the tables as a whole, and the snapshots
    with _threads() as threads:
        for chunk in read_chunks(store, faults, threads, named):
            checks.check(threads, chunk, fast=fast)
            made_by |= {record.made_by for lineage in chunk for record in lineage}
        if checks.tables is not None:
            checks.tables.finish(log)
        if not fast:
            check_unnamed_tars(store, faults, threads, checks.erasures, checks.objects)
        unproven = checks.unproven + check_snapshots(store, faults, threads)
    for plan_id in sorted(made_by.difference(plan_ids)):
        faults.note(
            f"plans/{plan_id}.json", "no such object, but records name the plan", "restore the plan from a copy"
        )

    return replace(checks.counted, plans=len(plan_ids), faults=faults.found, unproven=tuple(unproven))


class _ChunkChecks:
    """The checks of records chunk by chunk, with what they have counted."""

    def __init__(
        self,
        store: ObjectStore,
        faults: Faults,
        on_progress: Callable[[VerifyProgress], None],
        journal: Journal | None,
        records_total: int,
    ) -> None:
        self.tables: TableChecks | None = None
        self.unproven: list[str] = []
        self.erasures = Erasures()
        self.objects: set[str] = set()
        """Keys of the objects that records name."""
        self.counted = VerifyReport(plans=0, records=0, objects=0, nbytes=0, images=0, masks=0, withdrawn=0, faults=())
        self._store, self._faults, self._journal = store, faults, journal
        self._on_progress, self._records_total = on_progress, records_total
        self._state = ""

    def begin_tables(self, done: DoneFold, named: Sequence[ShardAddress]) -> None:
        """Prepare the checks of the tables of one fold."""
        self._state = hashlib.sha256(json_bytes(asdict(done))).hexdigest()
        self.unproven = [] if done.proofs else [f"folds/{done.number:08d}.done.json"]
        self.tables = TableChecks(self._store, self._faults, done, named)
        self.tables.begin()

    def check(self, threads: Executor, chunk: Sequence[Lineage], *, fast: bool) -> None:
        """Check the objects of some shards, then their rows in the tables."""
        rows = self._check_objects(threads, chunk, fast=fast)
        if self.tables is not None:
            records = [record for lineage in chunk for record in lineage]
            self.tables.remember(records)
            fresh = [record for record in records if not self._is_known(f"{record.record_sha256}@{self._state}")]
            for record in self.tables.check_chunk(fresh, rows, fast=fast):
                self._add_mark(f"{record.record_sha256}@{self._state}")

    def _check_objects(self, threads: Executor, chunk: Sequence[Lineage], *, fast: bool) -> dict[str, pa.Table]:
        """Check the objects of shards, and return the table rows in them, by key."""
        known = [all(self._is_known(self._mark_of(record)) for record in lineage) for lineage in chunk]
        fresh = [part for lineage, skip in zip(chunk, known, strict=True) if not skip for part in _parts(lineage)]
        answers = check_parts(self._store, threads, fresh, self.erasures, fast=fast)
        rows_by_key = {}
        for lineage, skip in zip(chunk, known, strict=True):
            parts, is_sound = _parts(lineage), True
            for part, found, rows in (next(answers) for _ in parts if not skip):
                is_sound = is_sound and not found.found
                for fault in found.found:
                    self._faults.add(fault)
                if rows is not None:
                    rows_by_key[part.key] = rows
            if is_sound and not skip:
                for record in lineage:
                    self._add_mark(self._mark_of(record))
            self._count(lineage, parts)
        return rows_by_key

    def _count(self, lineage: Lineage, parts: Sequence[Part]) -> None:
        newest, so_far = lineage[-1], self.counted
        self.objects |= {part.key for part in parts}
        self.counted = replace(
            so_far,
            records=so_far.records + len(lineage),
            objects=so_far.objects + len(parts),
            nbytes=so_far.nbytes + sum(part.nbytes for part in parts),
            images=so_far.images + (newest.images if newest.kind is PlanKind.IMAGES else 0),
            erased=len(self.erasures.images),
            masks=so_far.masks + (newest.masks if newest.kind.table == "masks" else 0),
            withdrawn=so_far.withdrawn + sum(part.masks for part in newest.withdrawn()),
        )
        self._on_progress(
            VerifyProgress(
                records=self.counted.records,
                records_total=self._records_total,
                nbytes=self.counted.nbytes,
                faults=len(self._faults.found),
            )
        )

    def _mark_of(self, record: Commit) -> str:
        """Return the journal's mark of a record's objects. Objects that are erased since then are read again."""
        keys = {part.key for part in record.parts} & self.erasures.objects.keys()
        stated = sorted(each.sha256 for key in keys for each in self.erasures.objects[key])
        return (
            hashlib.sha256(" ".join([record.record_sha256, *stated]).encode()).hexdigest()
            if keys
            else record.record_sha256
        )

    def _is_known(self, mark: str) -> bool:
        return self._journal is not None and mark in self._journal

    def _add_mark(self, mark: str) -> None:
        if self._journal is not None and mark not in self._journal:
            self._journal.add(mark)


@contextmanager
def _threads() -> Iterator[Executor]:
    """Give threads that read; after an error or Ctrl-C, what they have not begun is left."""
    threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="verify")
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _parts(lineage: Lineage) -> list[Part]:
    """List the objects of a shard once each: a redo may keep some of the generation before."""
    return list(dict.fromkeys(part for record in lineage for part in record.parts))


def _check_names(store: ObjectStore, faults: Faults) -> None:
    """Name the files that are none of a dataset's; readers pass over them."""
    checks = (
        ("plans/", is_plan_key),
        ("commits/", _is_record_key),
        ("folds/", is_fold_key),
        ("snapshots/", is_snapshot_key),
        ("promotions/", is_promotion_key),
        ("handovers/", is_handover_key),
        ("releases/", is_release_key),
    )
    for prefix, is_own in checks:
        with faults.guard(prefix, "make the folder readable"):
            for key in store.list(prefix):
                if not is_own(key):
                    faults.note(key, f"a file of that name is no part of {prefix}", "move it out of the dataset")


def _check_releases(store: ObjectStore, faults: Faults) -> None:
    advice, releases = "restore it from a copy", list[Release]()
    with faults.guard("releases/", advice):
        releases = Releases(store).read_all()
    for release in releases:
        with faults.guard(f"releases/{release.release_id}.images", advice):
            Releases(store).image_ids(release)


def _is_record_key(key: str) -> bool:
    try:
        ShardAddress.of_key(key)
    except ValueError:
        return False
    return True


def _check_plans(store: ObjectStore, faults: Faults) -> list[str]:
    plan_ids: list[str] = []
    with faults.guard("plans/", "make the folder readable"):
        plan_ids = list_plan_ids(store)
    for plan_id in plan_ids:
        with faults.guard(f"plans/{plan_id}.json", "restore the plan from a copy"):
            read_plan(store, plan_id)
    return plan_ids


def _list_records(store: ObjectStore, faults: Faults) -> list[ShardAddress]:
    with faults.guard("commits/", "make the folder readable"):
        return sorted(list_commits(store))
    return []
