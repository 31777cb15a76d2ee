"""Upkeep of a dataset: redo shards, give shards up, remove garbage, check every byte, rebuild the tables."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from storage.marker import UpgradeReport, upgrade
from storage.objects.stores import ObjectStore
from storage.progress import RECORDS, OnPhase, silent
from storage.protocol import cleaning, redo
from storage.protocol.cleaning import CleaningReport
from storage.protocol.commits import Commit
from storage.protocol.erasures import Erasures, read_erasures
from storage.protocol.plans import Plan
from storage.tables import erasing
from storage.tables.erasing import FoundImages
from storage.tables.folds import FoldReport, fold
from storage.tables.orphans import find_orphans
from storage.tables.rebuild import rebuild
from storage.verification import verify as verification
from storage.verification.journal import Journal, journal_path
from storage.verification.verify import VerifyProgress, VerifyReport


class Maintenance:
    """Methods for the upkeep of one dataset; `dataset.maintenance` is an instance."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def plan_redo(
        self, plan: Plan, shards: Sequence[str] | None = None, settings: Mapping[str, object] | None = None
    ) -> Plan:
        """Plan to make finished shards again, each as its next generation.

        `Dataset.write_images` and `Dataset.write_masks` then write the planned shards. Their argument `inherited` takes
        the commit record of the replaced shard, so that the new shard keeps the content of the replaced shard.

        Args:
            plan: The plan of the shards.
            shards: Names of the shards to redo; None for all shards that have rejects.
            settings: Settings of the new plan; None for the settings of `plan`.

        Raises:
            ValueError: There is nothing to redo, or a named shard is not finished.
        """
        return redo.plan_redo(self._store, plan, shards, settings)

    def close(self, plan: Plan) -> list[Commit]:
        """Give up the missing shards of a plan for good.

        Each missing shard gets a commit record, so that an attempt still under way loses. A shard that was never made
        stays unmade, also for other plans of the same settings that name it. A shard that was to be redone keeps its
        previous content.

        Returns:
            Records of the shards that were given up, by this call or by another call at the same time.
        """
        return cleaning.close(self._store, plan)

    def clean(self, *, delete: bool = False, on_progress: OnPhase = silent) -> CleaningReport:
        """Find the objects and half-written files of losing attempts, and table files that nothing can come to name.

        Live workers, folds and rebuilds may go on in the meantime; a fold may have to write its files again. A rebuild
        that is not published yet has to begin again.

        Args:
            delete: Whether to delete the objects that were found; otherwise they are only reported.
            on_progress: Function that is called now and then with how much is done.
        """
        report = cleaning.clean(self._store, delete=delete, on_progress=on_progress)
        orphans = find_orphans(self._store, delete=delete, on_progress=on_progress)
        return replace(report, table_files=tuple(orphans), nbytes=report.nbytes + sum(orphans.values()))

    def verify(
        self,
        *,
        fast: bool = False,
        on_progress: Callable[[VerifyProgress], None] = lambda progress: None,
        journal: Journal | None = None,
    ) -> VerifyReport:
        """Check the stored objects and the tables against the commit records.

        Args:
            fast: Whether to compare only the sizes of objects; otherwise every byte is read.
            on_progress: Function that is called after each shard.
            journal: What an interrupted check found sound, which is not read again; see `journal`.
        """
        return verification.verify(self._store, fast=fast, on_progress=on_progress, journal=journal)

    def journal(self, *, again: bool = False) -> Journal:
        """Read what an interrupted `verify` of this dataset found sound, as this user on this machine.

        `with maintenance.journal() as journal: maintenance.verify(journal=journal)` continues that check.

        Args:
            again: Whether to forget it, and to check everything again.

        Raises:
            StoreError: The journal, a file below ~/.cache/gigamask, cannot be read.
        """
        return Journal(journal_path(self._store), again=again)

    def find_images(self, image_ids: Collection[int], *, on_progress: OnPhase = silent) -> FoundImages:
        """Find the objects that hold images or their masks, in all generations of all shards.

        Args:
            image_ids: Ids of the images.
            on_progress: Function that is called now and then with how much is done.

        Raises:
            ValueError: The dataset does not hold an image.
        """
        found = erasing.find_images(self._store, image_ids, on_progress=on_progress)
        erasing.check_held(found, read_erasures(self._store), sorted(image_ids))
        return found

    def finish_erasures(self, *, on_progress: OnPhase = silent) -> Erasures:
        """Overwrite with zeros what is left of erased images, for example where an erasure died.

        Args:
            on_progress: Function that is called now and then with how much is done.

        Returns:
            All erasures of the dataset.
        """
        erasures = erasing.finish(self._store, on_progress=on_progress)
        fold(self._store, on_records=lambda done, total: on_progress(done, total, RECORDS))
        return erasures

    def rebuild_tables(self, *, on_records: Callable[[int, int], None] = lambda done, total: None) -> FoldReport:
        """Rebuild the five tables from the commit records, even where the tables are damaged or missing.

        Args:
            on_records: Function that is called now and then, with the numbers of records taken and of all records.
        """
        return rebuild(self._store, on_records=on_records)

    def upgrade(self) -> UpgradeReport:
        """Bring a dataset of an earlier format to the present one.

        The tables are rebuilt: with all columns of this version, with proofs, and without copies of images. Earlier
        versions of gigamask refuse the dataset from then on.
        """
        return upgrade(self._store)
