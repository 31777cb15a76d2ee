"""Changes that commit records make to a table: append rows, replace the rows of shards, withdraw masks."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from storage.errors import Corrupt
from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, read_commits
from storage.protocol.inputs import ShardAddress
from storage.tables import contents, delta
from storage.tables.fold_log import DoneFold, Fold, folded_generations
from storage.tables.rows import reject_rows, shard_rows
from storage.tables.withdrawals import withdrawn_by, withdrawn_masks, without_masks


def checked_records(store: ObjectStore, current: Fold) -> list[Commit]:
    """Read the commit records of a fold, and check that no record has changed since the fold was planned.

    Raises:
        Corrupt: A record is not the one that was folded.
    """
    commits = read_commits(store, [ShardAddress.of_key(record.key) for record in current.records])
    for commit, record in zip(commits, current.records, strict=True):
        if commit.record_sha256 != record.sha256:
            raise Corrupt(f"{store.uri}/{record.key}: changed after it was folded; restore it from a copy")
    return commits


def change_of(
    store: ObjectStore, done: DoneFold, name: str, action: str, commits: Sequence[Commit]
) -> delta.Change | None:
    """Plan the change that the fold after `done` makes to one table; None where the table stays as it is.

    Args:
        store: The store of the dataset.
        done: The fold before.
        name: Name of the table.
        action: Action of the new fold: append, replace, withdraw or compact.
        commits: Commit records that the new fold takes.
    """
    withdrawn = withdrawn_masks(store, done)
    if action == "withdraw" and name == "masks":
        return _withdrawing(store, done, withdrawn_by(store, commits), withdrawn)
    rows = rows_of(store, name, commits, withdrawn)
    if action == "replace" or (action == "compact" and count_rows(name, commits)):
        return delta.replacing(name, rows, [(commit.plan_id, commit.shard) for commit in commits])
    return delta.appending(name, rows) if action != "compact" and count_rows(name, commits) else None


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


def count_rows(name: str, commits: Sequence[Commit]) -> int:
    """Count the rows that commit records bring into the table `name`.

    Masks that were withdrawn are counted too.
    """
    own = [commit for commit in commits if commit.kind == name]
    counts = {
        "images": sum(commit.images for commit in own),
        "masks": sum(commit.masks for commit in own),
        "shards": len(commits),
        "rejects": sum(len(commit.rejects) for commit in commits),
    }
    return counts[name]


def _withdrawing(store: ObjectStore, done: DoneFold, new: pa.Table, earlier: pa.Table) -> delta.Change | None:
    """Replace the rows of the shards that hold newly withdrawn masks, without all masks withdrawn so far."""
    taken = folded_generations(store, done)
    shards = _shards_of(new, taken)
    if not shards:
        return None  # the withdrawal was closed without a result
    rows = rows_of(store, "masks", read_commits(store, shards), pa.concat_tables([new, earlier]))
    return delta.replacing("masks", rows, [(shard.plan_id, shard.shard) for shard in shards])


def rows_of(store: ObjectStore, name: str, commits: Sequence[Commit], withdrawn: pa.Table) -> delta.Rows:
    """Collect the rows that commit records bring into the table `name`, ordered by plan and shard.

    The masks in `withdrawn` are left out.
    """
    ordered = sorted(commits, key=lambda commit: (commit.plan_id, commit.shard))
    if name == "shards":
        return lambda: [shard_rows(ordered)]
    if name == "rejects":
        return lambda: [reject_rows(ordered)]
    parts = [part for commit in ordered if commit.kind == name for part in commit.rows()]
    if name == "images":
        return lambda: (contents.read_rows(store, part) for part in parts)
    return lambda: (without_masks(contents.read_rows(store, part), withdrawn) for part in parts)
