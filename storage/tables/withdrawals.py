"""Withdrawals: the commit record that takes masks back, and the rows it removes from `masks`."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa

from storage.errors import Corrupt, NotFound
from storage.objects.stores import ObjectStore
from storage.progress import OnPhase, silent
from storage.protocol.commits import Commit, begin_attempt, list_commits, newest_generations, read_commit, read_commits
from storage.protocol.inputs import MaskKey, PlanKind, withdrawn_inputs
from storage.protocol.plans import Plan, PlannedShard, make_plan, put_plan, read_plan
from storage.tables import contents
from storage.tables.columns import WITHDRAWALS, compact
from storage.tables.fold_log import DoneFold, folded_generations
from storage.tables.query import query_own, stream

_MAX_IMAGES_NAMED = 20
"""Most images that a SQL condition names; for longer lists the library reads all files anyway."""


def withdraw(
    store: ObjectStore,
    done: DoneFold,
    masks: Iterable[tuple[int, int]],
    reason: str,
    *,
    on_progress: OnPhase = silent,
) -> Commit:
    """Commit the withdrawal of masks. The next fold removes these masks from the table `masks`.

    Args:
        store: The store of the dataset.
        done: The fold in which the masks are looked up.
        masks: Pairs (image_id, mask_id).
        reason: Reason, which is stored in the record.
        on_progress: Function that is called now and then with how much is done.

    Raises:
        ValueError: A mask is not in the tables, or the same withdrawal was closed without a result.
    """
    # The plan of the withdrawal, whose id follows from its masks and reason
    wanted = sorted(set(masks))
    if not wanted or not all(0 <= each < 2**63 for pair in wanted for each in pair):
        raise ValueError(f"withdrawal: {'a mask has two 63-bit ids' if wanted else 'no mask was named'}")
    inputs = tuple(MaskKey(image_id=image_id, mask_id=mask_id) for image_id, mask_id in wanted)
    shard = PlannedShard.from_inputs(*inputs)
    plan = make_plan(PlanKind.WITHDRAWALS, [shard], {"reason": reason})
    with suppress(NotFound):
        return _not_closed(read_commit(store, plan.address(shard)))  # withdrawn before, for the same reason

    # The commit record, with the rows of the masks
    rows = rows_to_withdraw(store, done, plan, shard, on_progress=on_progress)
    attempt = begin_attempt(store, put_plan(store, plan), shard)
    contents.put_rows(attempt, rows, images=0, masks=len(wanted))
    return _not_closed(attempt.commit())


def rows_to_withdraw(
    store: ObjectStore,
    done: DoneFold,
    plan: Plan,
    shard: PlannedShard,
    *,
    may_be_gone: bool = False,
    on_progress: OnPhase = silent,
) -> pa.Table:
    """Find the rows of the masks that a shard of withdrawals or amendments withdraws, ordered by their shards.

    Args:
        store: The store of the dataset.
        done: The fold in which the masks are looked up.
        plan: The plan that holds the shard.
        shard: The shard, whose inputs name the masks.
        may_be_gone: Whether masks that are not in the tables are passed over.
        on_progress: Function that is called now and then with how much is done.

    Raises:
        ValueError: A mask is not in the tables.
    """
    wanted = sorted((key.image_id, key.mask_id) for key in withdrawn_inputs(shard.inputs))
    rows = _withdrawal_rows(store, done, wanted, str(plan.settings.get("reason", "")), on_progress)
    lost = sorted(set(wanted) - mask_pairs(rows))
    if lost and not may_be_gone:
        what = f"{len(lost)} of {len(wanted)} masks are not in fold {done.number}"
        raise ValueError(f"withdrawal: {what}, the first is {lost[0]} (image, mask)")
    return rows.sort_by([("plan", "ascending"), ("shard", "ascending")])


def _not_closed(withdrawal: Commit) -> Commit:
    """Return the record of a withdrawal.

    Raises:
        ValueError: The withdrawal was closed without a result.
    """
    if not withdrawal.attempt_id:
        raise ValueError(f"withdrawal: {withdrawal.address} was given up (`gc --close`); give another reason")
    return withdrawal


def _withdrawal_rows(
    store: ObjectStore, done: DoneFold, wanted: Sequence[tuple[int, int]], reason: str, on_progress: OnPhase
) -> pa.Table:
    """Find the rows of the named masks in one pass over the table; the columns are those of WITHDRAWALS."""
    if not wanted:
        return WITHDRAWALS.empty_table()
    image_ids = sorted({int(image_id) for image_id, _ in wanted})
    where = f"image_id IN ({', '.join(map(str, image_ids))})" if len(image_ids) <= _MAX_IMAGES_NAMED else "true"
    pairs = set(wanted)
    mask_ids = np.unique(np.array([mask_id for _, mask_id in wanted], dtype=np.int64))
    found, seen = [], 0
    total = query_own(store, done, f"SELECT count(*) AS n FROM masks WHERE {where}")["n"][0].as_py()
    for batch in stream(store, done, f"SELECT image_id, mask_id, plan, shard FROM masks WHERE {where}"):
        on_progress(seen, total, "masks looked at")
        seen += batch.num_rows
        own = batch.column("mask_id").to_numpy()
        suspects = mask_ids[np.minimum(np.searchsorted(mask_ids, own), len(mask_ids) - 1)] == own
        for row in batch.filter(pa.array(suspects)).to_pylist():
            if (row["image_id"], row["mask_id"]) in pairs:
                found.append({**row, "reason": reason})
    return pa.Table.from_pylist(found, schema=WITHDRAWALS)


def withdrawn_masks(store: ObjectStore, done: DoneFold | None) -> pa.Table:
    """Read the masks that were withdrawn, as a table with the columns of WITHDRAWALS.

    Args:
        store: The store of the dataset.
        done: Fold up to which withdrawals are read; None for all withdrawals, folded or not.
    """
    kinds = (PlanKind.WITHDRAWALS, PlanKind.AMENDMENTS)
    names = newest_generations(name for kind in kinds for name in list_commits(store, kind=kind))
    if done is not None and names:
        taken = folded_generations(store, done)
        names = [name for name in names if (name.plan_id, name.shard) in taken]
    return withdrawn_by(store, read_commits(store, names))


def withdrawn_by(store: ObjectStore, commits: Sequence[Commit]) -> pa.Table:
    """Read the masks that withdrawals and amendments withdraw, as a table with the columns of WITHDRAWALS.

    Commits of other kinds withdraw nothing.
    """
    schema = compact(WITHDRAWALS)
    tables = (_rows_of_withdrawal(store, commit).cast(schema) for commit in commits if commit.attempt_id)
    return pa.concat_tables([schema.empty_table(), *tables])


def _rows_of_withdrawal(store: ObjectStore, commit: Commit) -> pa.Table:
    """Read a withdrawal's rows; where they are lost, the plan still names the masks, though not their shards."""
    try:
        return pa.concat_tables(
            [
                WITHDRAWALS.empty_table(),
                *(contents.read_rows(store, part).cast(WITHDRAWALS) for part in commit.withdrawn()),
            ]
        )
    except (NotFound, Corrupt):
        plan = read_plan(store, commit.made_by)
        keys = withdrawn_inputs(plan.shard(commit.shard).inputs)
        rows = [{"image_id": key.image_id, "mask_id": key.mask_id, "reason": plan.settings["reason"]} for key in keys]
        return pa.Table.from_pylist(rows, schema=WITHDRAWALS)


def without_masks(rows: pa.Table, withdrawn: pa.Table) -> pa.Table:
    """Remove the withdrawn masks from rows of the table `masks`.

    The other rows keep their order.
    """
    if not withdrawn.num_rows or not rows.num_rows:
        return rows
    own, withdrawn_ids = rows.column("mask_id").to_numpy(), withdrawn.column("mask_id").to_numpy()
    gone = mask_pairs(withdrawn.filter(pa.array(np.isin(withdrawn_ids, own))))
    suspects = np.isin(own, withdrawn_ids)
    keep = ~suspects
    for index in np.flatnonzero(suspects):
        keep[index] = (rows["image_id"][index].as_py(), rows["mask_id"][index].as_py()) not in gone
    return rows.filter(pa.array(keep))


def mask_pairs(rows: pa.Table) -> set[tuple[int, int]]:
    """Return the set of (image_id, mask_id) in a table."""
    return set(zip(rows.column("image_id").to_pylist(), rows.column("mask_id").to_pylist(), strict=True))
