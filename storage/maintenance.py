"""Upkeep of a dataset: make shards again, give them up, remove garbage, check every byte, build the tables anew."""

from collections.abc import Mapping, Sequence

from storage.objects.stores import ObjectStore
from storage.protocol import cleaning, redo
from storage.protocol.cleaning import CleaningReport
from storage.protocol.commits import Commit
from storage.protocol.plans import Plan
from storage.tables import verification
from storage.tables.folds import FoldReport
from storage.tables.rebuild import rebuild
from storage.tables.verification import VerifyReport


class Maintenance:
    """The upkeep of one dataset, as `dataset.maintenance`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def plan_redo(
        self, plan: Plan, shards: Sequence[str] | None = None, settings: Mapping[str, object] | None = None
    ) -> Plan:
        """Plan the next generation of finished shards.

        The planned shards are written like any others. To keep what the replaced record holds and only add to it, give
        that record to `write_images` or `write_masks` as `inherited`.

        Args:
            plan: The plan of the shards.
            shards: Their names; None: all shards that have rejects.
            settings: Settings of the new plan; None: those of `plan`.

        Raises:
            ValueError: There is nothing to redo, or a named shard is not finished.
        """
        return redo.plan_redo(self._store, plan, shards, settings)

    def close(self, plan: Plan) -> list[Commit]:
        """Give up the plan's missing shards for good, by records which say that nobody will make them."""
        return cleaning.close(self._store, plan)

    def clean(self, *, delete: bool = False) -> CleaningReport:
        """Find what crashed and losing attempts left and, with `delete`, remove it; safe beside live workers."""
        return cleaning.clean(self._store, delete=delete)

    def verify(self, *, fast: bool = False) -> VerifyReport:
        """Read every byte that a record names, count it and compare the tables; `fast` compares sizes only."""
        return verification.verify(self._store, fast=fast)

    def rebuild_tables(self) -> FoldReport:
        """Build the four tables anew from the commit records, whatever state they are in."""
        return rebuild(self._store)
