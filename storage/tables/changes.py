"""Changes that commit records make to a table: append rows, replace the rows of shards, withdraw masks.

`LeftOut` says which content of the records stays out of the tables: withdrawn masks, copies of images, erased images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from storage.errors import Corrupt
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, Part, list_commits, newest_generations, read_commits
from storage.protocol.erasures import erasures_of, read_erasures
from storage.protocol.inputs import PlanKind, ShardAddress
from storage.tables import contents, delta
from storage.tables.duplicates import Duplicates, duplicates_in, ids_of, without_images
from storage.tables.fold_log import DoneFold, Fold, FoldedRecord, folded_generations
from storage.tables.rows import reject_rows, shard_rows
from storage.tables.withdrawals import withdrawn_by, withdrawn_masks, without_masks

_WITH_IMAGE_ID = ("images", "masks", "annotations")
"""Tables whose rows are about one image."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Content of commit records that stays out of the tables."""

    withdrawn: pa.Table
    """Withdrawn masks, with the columns of WITHDRAWALS."""
    duplicates: Duplicates
    """Image ids whose rows stay out, by the lineage of the shard."""
    erased: frozenset[int] = frozenset()
    """Ids of the erased images."""


def left_out(store: ObjectStore, done: DoneFold, new: Sequence[FoldedRecord] = ()) -> LeftOut:
    """Read what stays out of the tables after `done`, together with the decisions of the next fold about `new`."""
    decided = {record.address.lineage: record.kept_out for record in new}
    duplicates = {
        **duplicates_in(store, done),
        **{lineage: ids_of(keys) for lineage, keys in decided.items() if keys is not None},
    }
    erased = erased_ids(store, done, [record.address for record in new])
    no_masks = bool(decided) and all(record.address.kind == PlanKind.IMAGES for record in new)
    withdrawn = withdrawn_by(store, []) if no_masks else withdrawn_masks(store, done)
    return LeftOut(withdrawn=withdrawn, duplicates=duplicates, erased=erased)


def erased_ids(store: ObjectStore, done: DoneFold, new: Sequence[ShardAddress] = ()) -> frozenset[int]:
    """Read the ids of the images that erasures in the tables of `done`, or erasures among `new`, name."""
    names = newest_generations(list_commits(store, kind=PlanKind.ERASURES))
    if names:
        taken = folded_generations(store, done)
        names = [name for name in names if (name.plan_id, name.shard) in taken]
    names += [name for name in new if name.kind == PlanKind.ERASURES]
    return frozenset(read_erasures(store, set(names)).images)


def checked_records(store: ObjectStore, current: Fold) -> list[Commit]:
    """Read the commit records of a fold, and check that no record has changed since the fold was planned.

    Raises:
        Corrupt: A record is not the one that was folded.
    """
    commits = read_commits(store, [record.address for record in current.records])
    for commit, record in zip(commits, current.records, strict=True):
        if commit.record_sha256 != record.sha256:
            raise Corrupt(f"{store.uri}/{record.key}: changed after it was folded; restore it from a copy")
    return commits


def change_of(
    store: ObjectStore, done: DoneFold, name: str, action: str, commits: Sequence[Commit], left_out: LeftOut
) -> delta.Change | None:
    """Plan the change that the fold after `done` makes to one table; None where the table stays as it is.

    Args:
        store: The store of the dataset.
        done: The fold before.
        name: Name of the table.
        action: Action of the new fold: append, replace, withdraw, amend, erase or compact.
        commits: Commit records that the new fold takes.
        left_out: Content that stays out of the tables.
    """
    if action in ("withdraw", "amend") and name == "masks":
        return _withdrawing(store, done, commits, left_out)
    if action == "erase" and name in _WITH_IMAGE_ID:
        ids = sorted(erasures_of(commits).images)
        return delta.deleting_images(ids) if ids else None
    rows = rows_of(store, name, commits, left_out)
    counted = count_rows(name, commits, left_out.duplicates)
    if action in ("replace", "erase") or (action == "compact" and counted):
        return delta.replacing(name, rows, [(commit.plan_id, commit.shard) for commit in commits])
    return delta.appending(name, rows) if action != "compact" and counted else None


def can_be_withdrawn(
    store: ObjectStore, taken: Mapping[tuple[str, str], int], withdrawals: Sequence[Commit]
) -> set[ShardAddress]:
    """Return the addresses of the withdrawals that can be folded now.

    A withdrawal can be folded if each shard that holds one of the withdrawn masks is in the tables, and if the Parquet
    part with that shard's rows is still readable.
    """
    shards = {each.address: _shards_of(withdrawn_by(store, [each]), taken) for each in withdrawals}
    every = sorted({shard for some in shards.values() for shard in some or ()})
    readable = contents.have_rows(store, read_commits(store, every))
    return {address for address, some in shards.items() if some is not None and readable.issuperset(some)}


def _shards_of(rows: pa.Table, taken: Mapping[tuple[str, str], int]) -> list[ShardAddress] | None:
    """Return the folded shards that rows of withdrawals are about; None where one is not folded."""
    places = sorted(set(zip(rows["plan"].to_pylist(), rows["shard"].to_pylist(), strict=True)))
    if any(place not in taken for place in places):
        return None
    return [ShardAddress(plan_id=plan, shard=shard, generation=taken[plan, shard]) for plan, shard in places]


def count_rows(name: str, commits: Sequence[Commit], duplicates: Duplicates) -> int:
    """Count the rows that commit records bring into the table `name`.

    Masks that were withdrawn are counted too, as are the masks of copies.
    """
    own = [commit for commit in commits if commit.kind.table == name]
    copies = {commit.address: len(duplicates.get(commit.address.lineage, ())) for commit in commits}
    counts = {
        "images": sum(commit.images - copies[commit.address] for commit in own),
        "masks": sum(commit.masks for commit in own),
        "shards": len(commits),
        "rejects": sum(len(commit.rejects) + copies[commit.address] for commit in commits),
        "annotations": sum(part.masks for commit in commits for part in commit.annotations()),
    }
    return counts[name]


def _withdrawing(
    store: ObjectStore, done: DoneFold, commits: Sequence[Commit], earlier: LeftOut
) -> delta.Change | None:
    """Replace the rows of the shards that hold newly withdrawn masks, and add the rows of amendments.

    All masks withdrawn so far are left out.
    """
    new = withdrawn_by(store, commits)
    touched = read_commits(store, _shards_of(new, folded_generations(store, done)) or [])
    changed = [*touched, *(commit for commit in commits if commit.kind is PlanKind.AMENDMENTS)]
    if not changed:
        return None  # the withdrawals were closed without a result
    every = replace(earlier, withdrawn=pa.concat_tables([new, earlier.withdrawn]))
    rows = rows_of(store, "masks", changed, every)
    return delta.replacing("masks", rows, [(commit.plan_id, commit.shard) for commit in changed])


def rows_of(store: ObjectStore, name: str, commits: Sequence[Commit], left_out: LeftOut) -> delta.Rows:
    """Collect the rows that commit records bring into the table `name`, ordered by plan and shard."""
    ordered = sorted(commits, key=lambda commit: (commit.plan_id, commit.shard))
    if name == "shards":
        return lambda: [shard_rows(ordered)]
    if name == "rejects":
        return lambda: [reject_rows(ordered, left_out.duplicates)]
    if name == "annotations":  # work stays work where its mask is withdrawn
        annotations = [part for commit in ordered for part in commit.annotations()]
        return lambda: (without_images(contents.read_rows(store, part), left_out.erased) for part in annotations)
    parts = [(commit, part) for commit in ordered if commit.kind.table == name for part in commit.rows()]
    return lambda: (_part_rows(store, commit, part, left_out) for commit, part in parts)


def _part_rows(store: ObjectStore, commit: Commit, part: Part, left_out: LeftOut) -> pa.Table:
    """Read the rows of one part of a shard that belong into the tables."""
    return rows_to_keep(commit, contents.read_rows(store, part), left_out)


def rows_to_keep(commit: Commit, rows: pa.Table, left_out: LeftOut) -> pa.Table:
    """Remove what stays out of the tables from rows of a shard."""
    copies = left_out.duplicates.get(commit.address.lineage, frozenset())
    kept = without_images(rows, copies | left_out.erased)
    return without_masks(kept, left_out.withdrawn) if commit.kind.table == "masks" else kept
