"""The log of folds as it lies in folds/: what can be read of it, and what is damaged or missing."""

from dataclasses import dataclass, field

from storage.objects.stores import ObjectStore
from storage.tables.fold_log import DoneFold, Fold, fold_number, is_done_key, read_done, read_fold
from storage.verification.faults import RESTORE, Faults


@dataclass(frozen=True, kw_only=True)
class FoldLog:
    """Readable files of the folder folds/, by number of the fold."""

    folds: dict[int, Fold] = field(default_factory=dict)
    done: dict[int, DoneFold] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """Number of the fold with which the newest set of tables began."""
        folder = self.done[max(self.done)].folder if self.done else ""
        return min((number for number, done in self.done.items() if done.folder == folder), default=0)

    def applied(self) -> list[Fold]:
        """Folds whose records were added to the tables of the fold before.

        A fold whose number a rebuild used for new tables is left out.
        """
        return [fold for number, fold in sorted(self.folds.items()) if self.is_applied(number)]

    def is_applied(self, number: int) -> bool:
        """Whether the fold `number` is done, and has its result in the same tables as the fold before."""
        before, own = self.done.get(number - 1), self.done.get(number)
        return before is not None and own is not None and before.folder == own.folder


def read_fold_log(store: ObjectStore, faults: Faults) -> FoldLog:
    """Read all files of the folder folds/, and note each damaged or missing file as a fault.

    Only files of folds into the newest tables are noted, because nothing reads earlier folds any more.
    """
    log, found = FoldLog(), Faults()
    with faults.guard("folds/", "make the folder readable"):
        for key in store.list("folds/"):
            number = fold_number(key)
            if number is not None:
                with found.guard(key, RESTORE):
                    _read_into(store, log, found, key, number)
    if log.done:
        _note_missing(log, found)
    for fault in found.found:
        number = fold_number(fault.key)
        if number is None or number >= log.first:
            faults.add(fault)
    return log


def _note_missing(log: FoldLog, faults: Faults) -> None:
    newest = max(log.done)
    for number in range(log.first, newest + 1):
        done_key, key = f"folds/{number:08d}.done.json", f"folds/{number:08d}.json"
        if number not in log.done and done_key not in faults.keys:
            faults.note(done_key, f"no such object; the newest is that of fold {newest}", RESTORE)
        if log.is_applied(number) and number not in log.folds and key not in faults.keys:
            faults.note(key, f"no such object, but fold {number} is done", RESTORE)


def _read_into(store: ObjectStore, log: FoldLog, faults: Faults, key: str, number: int) -> None:
    read: Fold | DoneFold
    if is_done_key(key):
        read = log.done[number] = read_done(store, number)
    else:
        read = log.folds[number] = read_fold(store, number)
    if read.number != number:
        faults.note(key, f"its content is that of fold {read.number}", RESTORE)
