"""The redo of finished shards: new records are written beside the old records, and nothing changes in place."""

from collections.abc import Mapping, Sequence

from storage.objects.stores import ObjectStore
from storage.protocol.commits import list_commits, newest_generations, read_commits
from storage.protocol.inputs import PlanKind
from storage.protocol.plans import Plan, PlannedShard, list_plan_ids, make_plan, put_plan, read_plan


def plan_redo(
    store: ObjectStore, plan: Plan, shards: Sequence[str] | None = None, settings: Mapping[str, object] | None = None
) -> Plan:
    """Plan to make finished shards again, each as its next generation.

    Each planned shard holds the hash of the record that it replaces. Calling this again before the redo is done gives
    the same plan.

    Args:
        store: The store of the dataset.
        plan: The plan of the shards.
        shards: Names of the shards to redo; None for all finished shards that have rejects.
        settings: Settings of the new plan; None for the settings of `plan`.

    Raises:
        ValueError: There is nothing to redo, a named shard has no record yet, or a redo with other settings is not
            finished.
    """
    base = read_plan(store, plan.redoes) if plan.redoes else plan
    if base.kind in (PlanKind.WITHDRAWALS, PlanKind.AMENDMENTS):
        raise ValueError(f"plan {base.plan_id}: {base.kind} are not made again; withdraw or amend masks once more")
    if base.kind is PlanKind.ERASURES:
        raise ValueError(f"plan {base.plan_id}: erasures are not made again; `gigamask erase --finish` completes them")
    planned = {shard.name: shard for shard in base.shards}
    every = newest_generations(list_commits(store, base.home))
    newest = {address.shard: address for address in every if address.shard in planned}
    unknown = [name for name in shards or () if name not in newest]
    if unknown:
        raise ValueError(f"plan {base.plan_id}: no record of {', '.join(unknown)}; only finished shards are redone")
    chosen = sorted(newest) if shards is None else shards
    records = read_commits(store, [newest[name] for name in chosen])
    if shards is None:
        records = [record for record in records if record.rejects]
    if not records:
        raise ValueError(f"plan {base.plan_id}: no finished shard has rejects; name the shards to redo")
    redone = [
        PlannedShard(
            name=record.shard,
            inputs=planned[record.shard].inputs,
            generation=record.generation + 1,
            previous=record.record_sha256,
        )
        for record in records
    ]
    kept = plan.settings if settings is None else settings
    new = make_plan(base.kind, redone, kept, redoes=base.plan_id, home=base.home)
    _check_no_other_redo(store, new)
    return put_plan(store, new)


def _check_no_other_redo(store: ObjectStore, new: Plan) -> None:
    """Check that no unfinished redo with other settings makes the same generation of a shard.

    Raises:
        ValueError: There is such a redo. One of the two would count as done unmade.
    """
    addresses = {new.address(shard) for shard in new.shards}
    for plan_id in list_plan_ids(store):
        other = read_plan(store, plan_id) if plan_id.startswith(f"{new.kind}-") else new
        if other.redoes and other.home == new.home and other.settings_hash != new.settings_hash:
            shared = [shard.name for shard in other.shards if other.address(shard) in addresses]
            if shared:
                raise ValueError(
                    f"plan {new.redoes}: plan {plan_id} redoes shard {shared[0]} with other settings and is not "
                    f"finished; finish it, or give it up (`gigamask gc --close {plan_id}`)"
                )
