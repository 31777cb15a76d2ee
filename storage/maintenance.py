"""Upkeep of a dataset: redo shards, give shards up, remove garbage, check every byte, rebuild the tables."""

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
    """Methods for the upkeep of one dataset; `dataset.maintenance` is an instance."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def plan_redo(
        self, plan: Plan, shards: Sequence[str] | None = None, settings: Mapping[str, object] | None = None
    ) -> Plan:
        """Plan the next generation of finished shards.

        `write_images` and `write_masks` write the planned shards. Their argument `inherited` takes the replaced record,
        to keep its content and only add to it.

        Args:
            plan: The plan of the shards.
            shards: Names of the shards to redo; None for all shards that have rejects.
            settings: Settings of the new plan; None for the settings of `plan`.

        Raises:
            ValueError: There is nothing to redo, or a named shard is not finished.
        """
        return redo.plan_redo(self._store, plan, shards, settings)

    def close(self, plan: Plan) -> list[Commit]:
        """Give up the plan's missing shards for good: commit a record for each, which states that it stays unmade."""
        return cleaning.close(self._store, plan)

    def clean(self, *, delete: bool = False) -> CleaningReport:
        """Find what crashed and losing attempts left, and remove it if `delete` is set; live workers may go on."""
        return cleaning.clean(self._store, delete=delete)

    def verify(self, *, fast: bool = False) -> VerifyReport:
        """Check every byte that a record names, and the tables, against the records; `fast` compares only sizes."""
        return verification.verify(self._store, fast=fast)

    def rebuild_tables(self) -> FoldReport:
        """Rebuild the four tables from the commit records, even where the tables are damaged or missing."""
        return rebuild(self._store)
