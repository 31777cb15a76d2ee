"""Folding: commit records become table rows, each exactly once, and the four tables change together.

`folds/<n>.json` (put-if-absent) lists the records fold n takes. Any process may then apply it: to each table one
transaction (application "fold", version n), written from the very handle in which it was found absent, so that a
second one fails instead of doubling. `folds/<n>.done.json` records the four table versions; only then can n + 1 begin.
Readers open the highest done fold and never a table's newest version. A process that dies anywhere in between leaves
work that the next one completes.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storage.formats.documents import FORMAT, corrupt_where_malformed, json_bytes, read_json
from storage.objects.stores import Conflict, Corrupt, ObjectStore, StoreError
from storage.protocol.commits import Commit, list_commits, newest_generations, read_commits
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.tables import contents, delta
from storage.tables import rows as tables
from storage.tables.durability import TableProof, publish_version

_MOST_RECORDS = 1024  # records one fold takes
_COMPACTED = 64  # each fold of a number that this divides puts the files of those before it together,
_SMALL_FOLD = 16  # as far as they took no more records than this
_DONE = ".done.json"


@dataclass(frozen=True, kw_only=True)
class FoldedRecord:
    """A commit record that a fold takes."""

    key: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What `folds/<n>.json` says.

    `action`: "append" for shards new to the tables, "replace" for newer generations of shards that are in them,
    "withdraw" for withdrawals; "compact" puts records that small folds took into the place of themselves, in one file.
    """

    number: int
    action: str
    records: tuple[FoldedRecord, ...]


@dataclass(frozen=True, kw_only=True)
class DoneFold:
    """What `folds/<n>.done.json` says: the tables' folder, and the version of each that agrees with the others."""

    number: int
    folder: str
    versions: dict[str, int]
    proofs: dict[str, TableProof] = field(default_factory=dict)
    """By table; empty for one that an earlier format wrote."""


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """What one call of `fold` did: folds completed, records taken, and the fold readers now see."""

    folds: int
    records: int
    newest: int


def begin(store: ObjectStore) -> None:
    """The empty tables and fold 0; harmless to repeat."""
    versions = delta.create_tables(store, delta.FIRST_FOLDER)
    with suppress(Conflict):
        proofs = _publish(store, delta.FIRST_FOLDER, versions)
        _put_done(store, DoneFold(number=0, folder=delta.FIRST_FOLDER, versions=versions, proofs=proofs))


def fold(store: ObjectStore, *, before_step: Callable[[str], None] = lambda step: None) -> FoldReport:
    """Completes an unfinished fold, then folds all records not yet taken; safe beside other folders.

    `before_step` is called with the name of each step about to be taken: a place for tests to die in.
    """
    folds = records = 0
    done = newest_done(store)
    while (current := _next_fold(store, done, before_step)) is not None:
        commits = _checked_records(store, current)
        versions = {}
        for name in tables.SCHEMAS:
            before_step(f"apply {name}")
            change = _change(store, done, name, current.action, commits)
            since = done.versions[name]
            versions[name] = delta.change_once(store, done.folder, name, current.number, change, since=since)
        before_step("make durable")
        proofs = _publish(store, done.folder, versions, done)
        before_step("done")
        with suppress(Conflict):
            _put_done(store, replace(done, number=current.number, versions=versions, proofs=proofs))
        done = read_done(store, current.number)
        folds += 1
        records += len(commits) if current.action != "compact" else 0
    return FoldReport(folds=folds, records=records, newest=done.number)


def rebuild(store: ObjectStore) -> FoldReport:
    """Makes the four tables anew from the commit records, in a folder of their own, and publishes them as one fold.

    Needs no table and no earlier fold to be readable. Older snapshots go on reading the old folder. What other
    processes fold in the meantime is taken, too, before these tables are published, so that readers never go back.
    """
    folder = f"{delta.FIRST_FOLDER}-{_next_number(store):08d}-{uuid.uuid4().hex[:8]}"
    built = DoneFold(number=0, folder=folder, versions=_build(store, folder, newest_generations(list_commits(store))))
    while True:
        number = _next_number(store)
        built = _catch_up(store, replace(built, number=number))
        built = replace(built, proofs=_publish(store, folder, built.versions))
        with suppress(Conflict):
            _put_done(store, built)
        if read_done(store, number).folder == folder:  # also where the answer to our put was lost
            return FoldReport(folds=1, records=len(folded_generations(store, built)), newest=number)


def _catch_up(store: ObjectStore, built: DoneFold) -> DoneFold:
    """Takes into tables that nobody knows yet the records that they lack."""
    while (missing := _unfolded(store, built)) is not None:
        commits = _checked_records(store, missing)
        versions = {
            name: delta.change_unshared(store, built.folder, name, _change(store, built, name, missing.action, commits))
            for name in tables.SCHEMAS
        }
        built = replace(built, versions=versions)
    return built


def newest_done(store: ObjectStore) -> DoneFold:
    """The fold that readers open. Raises Corrupt where there is none."""
    numbers = _done_numbers(store)
    if not numbers:
        raise Corrupt(f"{store.uri}: folds/ holds no finished fold; the dataset was copied in part, copy it again")
    return read_done(store, numbers[-1])


def read_done(store: ObjectStore, number: int) -> DoneFold:
    """Raises NotFound, Corrupt."""
    key = _done_key(number)
    fields = read_json(store.get(key), "done_fold", f"{store.uri}/{key}")
    with corrupt_where_malformed(f"{store.uri}/{key}"):
        versions = {name: fields["versions"][name] for name in tables.SCHEMAS}
        return DoneFold(number=fields["number"], folder=fields["folder"], versions=versions, proofs=read_proofs(fields))


def read_proofs(fields: Mapping[str, Any]) -> dict[str, TableProof]:
    """The proofs in the JSON of a done fold or a snapshot."""
    return {name: TableProof(**proof) for name, proof in fields.get("proofs", {}).items()}


def table_rows(store: ObjectStore, done: DoneFold, name: str, columns: Sequence[str]) -> pa.Table:
    """Columns of one table at a fold. Raises Corrupt."""
    table = delta.open_table(store, done.folder, name, done.versions[name])
    try:
        return delta.try_again(lambda: table.to_pyarrow_table(columns=list(columns)))
    except OSError as error:
        raise Corrupt(f"{store.uri}: table {name} cannot be read ({delta.one_line(error)}); verify it") from error


def folded_generations(store: ObjectStore, done: DoneFold) -> dict[tuple[str, str], int]:
    """(plan, shard) -> generation in the tables. `shards` has a row for every record taken: it is the list of them."""
    rows = table_rows(store, done, "shards", ("plan", "shard", "generation"))
    return {(row["plan"], row["shard"]): row["generation"] for row in rows.to_pylist()}


def withdrawn_masks(store: ObjectStore, done: DoneFold | None) -> pa.Table:
    """Masks withdrawn by the records of a fold (None: by all records, folded or not); columns of tables.WITHDRAWALS."""
    names = newest_generations(list_commits(store, kind=PlanKind.WITHDRAWALS))
    if done is not None and names:
        taken = folded_generations(store, done)
        names = [name for name in names if (name.plan_id, name.shard) in taken]
    return _withdrawn_by(store, read_commits(store, names))


def _build(store: ObjectStore, folder: str, names: Sequence[ShardAddress]) -> dict[str, int]:
    """New tables in a folder nobody knows yet, filled from records; without what these very records withdraw."""
    versions = delta.create_tables(store, folder)
    withdrawals = [name for name in names if name.kind == PlanKind.WITHDRAWALS]
    withdrawn = _withdrawn_by(store, read_commits(store, withdrawals))
    for start in range(0, len(names), _MOST_RECORDS):
        commits = read_commits(store, names[start : start + _MOST_RECORDS])
        for name in tables.SCHEMAS:
            rows = _rows(store, name, commits, withdrawn)
            change = delta.appending(name, rows) if _brings(name, commits) else None
            versions[name] = delta.change_unshared(store, folder, name, change)
    return versions


def _publish(
    store: ObjectStore, folder: str, versions: Mapping[str, int], done: DoneFold | None = None
) -> dict[str, TableProof]:
    """Make the tables durable at these versions; those of `done`, the fold before, are durable if it has proofs."""
    durable = done.versions if done is not None and done.proofs else dict.fromkeys(versions, -1)
    return {name: publish_version(store, folder, name, durable[name], version) for name, version in versions.items()}


def _next_fold(store: ObjectStore, done: DoneFold, before_step: Callable[[str], None]) -> Fold | None:
    """The fold after `done`: the one already begun, or a new one over records not yet taken; None if there are none."""
    key = _fold_key(done.number + 1)
    if key not in store.list(key):
        planned = _plan_fold(store, done)
        if planned is None:
            return None
        before_step("plan")
        store.make_names_durable(record.key for record in planned.records)
        with suppress(Conflict):
            store.put_if_absent(key, json_bytes({"format": FORMAT, **asdict(planned), "created_at": _now()}))
    return _read_fold(store, done.number + 1)


def _read_fold(store: ObjectStore, number: int) -> Fold:
    """Raises NotFound, Corrupt."""
    key = _fold_key(number)
    fields = read_json(store.get(key), "fold", f"{store.uri}/{key}")
    with corrupt_where_malformed(f"{store.uri}/{key}"):
        records = tuple(FoldedRecord(**record) for record in fields["records"])
        return Fold(number=fields["number"], action=fields["action"], records=records)


def _plan_fold(store: ObjectStore, done: DoneFold) -> Fold | None:
    """What the fold after `done` does; None where there is nothing to do."""
    compacted = _compacted(store, done)
    if compacted:
        return Fold(number=done.number + 1, action="compact", records=compacted)
    return _unfolded(store, done)


def _unfolded(store: ObjectStore, done: DoneFold) -> Fold | None:
    """New shards first, then newer generations, then withdrawals: each finds in the tables what it changes."""
    taken = folded_generations(store, done)
    names = newest_generations(list_commits(store))
    fresh = [name for name in names if (name.plan_id, name.shard) not in taken]
    withdrawals = [name for name in fresh if name.kind == PlanKind.WITHDRAWALS]
    choices = {
        "append": [name for name in fresh if name.kind != PlanKind.WITHDRAWALS],
        "replace": [name for name in names if name.generation > taken.get((name.plan_id, name.shard), name.generation)],
        "withdraw": withdrawals,
    }
    for action, some in choices.items():
        if some:
            commits = read_commits(store, some[:_MOST_RECORDS])
            records = tuple(FoldedRecord(key=each.address.key, sha256=each.record_sha256) for each in commits)
            return Fold(number=done.number + 1, action=action, records=records)
    return None


def _compacted(store: ObjectStore, done: DoneFold) -> tuple[FoldedRecord, ...]:
    """What the fold after `done` puts together: the records in the tables that small folds took; () for none.

    It follows from the log alone. Rows of the records before a rebuild lie together already.
    """
    if (done.number + 1) % _COMPACTED:
        return ()
    folds = (_read_fold(store, number) for number in _folds_of_tables(store, done))
    taken = [each for each in folds if each.action != "compact"]
    newest = newest_generations(ShardAddress.of_key(record.key) for each in taken for record in each.records)
    small = [each for each in taken if len(each.records) <= _SMALL_FOLD]
    records = {record.key: record for each in small for record in each.records}
    return tuple(records[name.key] for name in newest if name.key in records) if len(small) > 1 else ()


def _folds_of_tables(store: ObjectStore, done: DoneFold) -> range:
    """The last folds that `done`'s tables took one after the other, as many as one compaction looks at."""
    first = done.number
    while first > max(done.number + 1 - _COMPACTED, 0) and _folder_of(store, first - 1) == done.folder:
        first -= 1
    return range(first + 1, done.number + 1)  # the first is the rebuild that made the tables, or further back


def _folder_of(store: ObjectStore, number: int) -> str:
    """The tables' folder at a fold; empty where its file cannot be read: tables made anew took its place."""
    try:
        return read_done(store, number).folder
    except StoreError:
        return ""


def _checked_records(store: ObjectStore, current: Fold) -> list[Commit]:
    commits = read_commits(store, [ShardAddress.of_key(record.key) for record in current.records])
    for commit, record in zip(commits, current.records, strict=True):
        if commit.record_sha256 != record.sha256:
            raise Corrupt(f"{store.uri}/{record.key}: changed after it was folded; restore it from a copy")
    return commits


def _change(
    store: ObjectStore, done: DoneFold, name: str, action: str, commits: Sequence[Commit]
) -> delta.Change | None:
    """What the fold after `done` does to one table; None where that is nothing."""
    withdrawn = withdrawn_masks(store, done)
    if action == "withdraw" and name == "masks":
        return _withdrawing(store, done, _withdrawn_by(store, commits), withdrawn)
    rows = _rows(store, name, commits, withdrawn)
    if action == "replace" or (action == "compact" and _brings(name, commits)):
        return delta.replacing(name, rows, [(commit.plan_id, commit.shard) for commit in commits])
    return delta.appending(name, rows) if action != "compact" and _brings(name, commits) else None


def _brings(name: str, commits: Sequence[Commit]) -> int:
    """How many rows records bring into a table, at most: masks may be withdrawn."""
    own = [commit for commit in commits if commit.kind == name]
    counts = {
        "images": sum(commit.images for commit in own),
        "masks": sum(commit.masks for commit in own),
        "shards": len(commits),
        "rejects": sum(len(commit.rejects) for commit in commits),
    }
    return counts[name]


def _withdrawing(store: ObjectStore, done: DoneFold, new: pa.Table, earlier: pa.Table) -> delta.Change | None:
    """Puts the shards of newly withdrawn masks into the table again, without these and those withdrawn before."""
    taken = folded_generations(store, done)
    places = sorted(set(zip(new["plan"].to_pylist(), new["shard"].to_pylist(), strict=True)))
    if not places:
        return None  # the withdrawal was closed unmade
    names = [ShardAddress(plan_id=plan, shard=shard, generation=taken[plan, shard]) for plan, shard in places]
    rows = _rows(store, "masks", read_commits(store, names), pa.concat_tables([new, earlier]))
    return delta.replacing("masks", rows, places)


def _rows(store: ObjectStore, name: str, commits: Sequence[Commit], withdrawn: pa.Table) -> delta.Rows:
    """What these records bring into a table, by plan and shard."""
    ordered = sorted(commits, key=lambda commit: (commit.plan_id, commit.shard))
    if name == "shards":
        return lambda: [tables.shard_rows(ordered)]
    if name == "rejects":
        return lambda: [tables.reject_rows(ordered)]
    parts = [part for commit in ordered if commit.kind == name for part in commit.rows()]
    if name == "images":
        return lambda: (contents.read_rows(store, part) for part in parts)
    return lambda: (tables.without_masks(contents.read_rows(store, part), withdrawn) for part in parts)


def _withdrawn_by(store: ObjectStore, commits: Sequence[Commit]) -> pa.Table:
    schema = tables.compact(tables.WITHDRAWALS)
    parts = (contents.read_rows(store, part).cast(schema) for commit in commits for part in commit.rows())
    return pa.concat_tables([schema.empty_table(), *parts])


def _done_numbers(store: ObjectStore) -> list[int]:
    keys = [key for key in store.list("folds/") if key.endswith(_DONE)]
    return sorted(int(key.removeprefix("folds/").removesuffix(_DONE)) for key in keys)


def _next_number(store: ObjectStore) -> int:
    numbers = _done_numbers(store)
    return numbers[-1] + 1 if numbers else 0


def _put_done(store: ObjectStore, done: DoneFold) -> None:
    store.put_if_absent(_done_key(done.number), json_bytes({"format": FORMAT, **asdict(done), "created_at": _now()}))


def _fold_key(number: int) -> str:
    return f"folds/{number:08d}.json"


def _done_key(number: int) -> str:
    return f"folds/{number:08d}{_DONE}"


def _now() -> str:
    return datetime.now(UTC).isoformat()
