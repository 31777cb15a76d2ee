"""Making finished shards again, and taking masks back: new records beside the old ones, never changes in place."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa

from storage.objects.stores import NotFound, ObjectStore
from storage.protocol.commits import Commit, begin_attempt, list_commits, newest_generations, read_commit, read_commits
from storage.protocol.inputs import MaskKey, PlanKind
from storage.protocol.plans import Plan, PlannedShard, make_plan, put_plan, read_plan
from storage.tables import contents
from storage.tables import rows as tables
from storage.tables.folds import DoneFold
from storage.tables.query import stream

_NAMED_IN_SQL = 20  # images: of more the library reads all files


def plan_redo(
    store: ObjectStore, plan: Plan, shards: Sequence[str] | None = None, settings: Mapping[str, object] | None = None
) -> Plan:
    """A plan for the next generation of finished shards: those named, or all that have rejects.

    Each names the hash of the record it replaces. Planned twice before it is done, it is the same plan.
    Raises ValueError where there is nothing to redo, or a named shard has no record yet.
    """
    home = read_plan(store, plan.home)
    newest = {address.shard: address for address in newest_generations(list_commits(store, home.plan_id))}
    unknown = [name for name in shards or () if name not in newest]
    if unknown:
        raise ValueError(f"plan {home.plan_id}: no record of {', '.join(unknown)}; only finished shards are redone")
    chosen = sorted(newest) if shards is None else shards
    records = read_commits(store, [newest[name] for name in chosen])
    if shards is None:
        records = [record for record in records if record.rejects]
    if not records:
        raise ValueError(f"plan {home.plan_id}: no finished shard has rejects; name the shards to redo")
    redone = [
        PlannedShard(
            name=record.shard,
            inputs=home.shard(record.shard).inputs,
            generation=record.generation + 1,
            previous=record.record_sha256,
        )
        for record in records
    ]
    kept = plan.settings if settings is None else settings
    return put_plan(store, make_plan(home.kind, redone, kept, redoes=home.plan_id))


def withdraw(store: ObjectStore, done: DoneFold, masks: Iterable[tuple[int, int]], reason: str) -> Commit:
    """Records that these (image_id, mask_id) are withdrawn; the next fold takes them out of `masks`.

    Raises ValueError for masks that are not in the tables, and where this very withdrawal was closed.
    """
    wanted = sorted(set(masks))
    if not wanted or not all(0 <= each < 2**63 for pair in wanted for each in pair):
        raise ValueError(f"withdrawal: {'a mask has two 63-bit ids' if wanted else 'no mask was named'}")
    inputs = tuple(MaskKey(image_id=image_id, mask_id=mask_id) for image_id, mask_id in wanted)
    shard = PlannedShard(name="00000", inputs=inputs)
    plan = make_plan(PlanKind.WITHDRAWALS, [shard], {"reason": reason})
    with suppress(NotFound):
        return _made(read_commit(store, plan.address(shard)))  # withdrawn before, for the same reason
    rows = _found(store, done, wanted, reason)
    lost = sorted(set(wanted) - tables.mask_pairs(rows))
    if lost:
        what = f"{len(lost)} of {len(wanted)} masks are not in fold {done.number}"
        raise ValueError(f"withdrawal: {what}, the first is {lost[0]} (image, mask)")
    attempt = begin_attempt(store, put_plan(store, plan), shard)
    contents.put_rows(
        attempt, rows.sort_by([("plan", "ascending"), ("shard", "ascending")]), images=0, masks=len(wanted)
    )
    return _made(attempt.commit())


def _made(withdrawal: Commit) -> Commit:
    if not withdrawal.attempt_id:
        raise ValueError(f"withdrawal: {withdrawal.address} was given up (`gc --close`); give another reason")
    return withdrawal


def _found(store: ObjectStore, done: DoneFold, wanted: Sequence[tuple[int, int]], reason: str) -> pa.Table:
    """The rows of the named masks, as rows of a withdrawal; one pass over the table, whatever their number."""
    image_ids = sorted({int(image_id) for image_id, _ in wanted})
    where = f"image_id IN ({', '.join(map(str, image_ids))})" if len(image_ids) <= _NAMED_IN_SQL else "true"
    pairs = set(wanted)
    mask_ids = np.unique(np.array([mask_id for _, mask_id in wanted], dtype=np.int64))
    found = []
    for batch in stream(store, done, f"SELECT image_id, mask_id, plan, shard FROM masks WHERE {where}"):
        own = batch.column("mask_id").to_numpy()
        suspects = mask_ids[np.minimum(np.searchsorted(mask_ids, own), len(mask_ids) - 1)] == own
        for row in batch.filter(pa.array(suspects)).to_pylist():
            if (row["image_id"], row["mask_id"]) in pairs:
                found.append({**row, "reason": reason})
    return pa.Table.from_pylist(found, schema=tables.WITHDRAWALS)
