"""Power cuts: what is left of a dataset when the machine loses power at any step of a job.

Two disks. `SimulatedDisk` works anywhere and is stricter than any file system: of the files a job has written, the disk
keeps only what fsync vouches for, the bytes of a file that was fsynced and the names in a folder that was fsynced
since; everything else is lost, emptied or kept, as the mode or the dice say. `LoopDisk` is a real ext4 on a loop device
(it needs root): the image is copied while the job stands still, and the copy is mounted, which replays the journal as
a reboot does.

After each cut the bytes are checked from outside (checker.py): records and snapshots acknowledged before the cut are
there and unchanged. Then the next run finishes, and the dataset must be complete.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from storage.dataset import Dataset
from tests.faults.checker import TABLES, Checker, Finding, FolderFiles
from tests.faults.datasets import make_base
from tests.faults.every_step import JOBS, finish_and_clean
from tests.faults.tally import Tally, create, done, finished, in_child, look
from tests.faults.workers import FREEZE, Job, Strike, Worker

POWER_CUT = "power cut"
LOST, EMPTIED, DRAWN = "lost", "emptied", "drawn at random"
"""What becomes of a file that nobody fsynced: no name; a name without bytes; one of these, or the whole file."""
MODES = (LOST, EMPTIED, DRAWN)
IMAGE_BYTES = 48 << 20
ACKNOWLEDGED = ("plans/", "commits/", "folds/", "snapshots/")


class Disk(Protocol):
    """A place for a dataset whose power can be cut."""

    root: Path
    """The dataset's folder while the power is on."""
    modes: tuple[str, ...]

    def begin(self, template: Path) -> None:
        """Put a copy of a dataset at `root`, all of it on the disk."""

    def watched(self, job: Job) -> Job:
        """Return the job such that the disk knows what it fsyncs."""

    def cut(self, mode: str, dice: random.Random) -> Path:
        """Return the folder of the dataset as the next start of the machine finds it."""

    def end(self) -> None:
        """Remove what `begin` and `cut` made."""


class SimulatedDisk:
    """Keeps of a job's files what fsync vouches for."""

    modes: tuple[str, ...] = MODES

    def __init__(self, folder: Path) -> None:
        self.root, self._after, self._log = folder / "on", folder / "after", folder / "fsyncs"
        self._before: dict[Path, int] = {}

    def begin(self, template: Path) -> None:
        self.end()
        shutil.copytree(template, self.root)
        self._before = {path: path.lstat().st_ino for path in self.root.rglob("*")}
        self._log.write_bytes(b"")

    def watched(self, job: Job) -> Job:
        def work(dataset: Dataset) -> object:
            real = os.fsync

            def fsync(descriptor: int) -> None:
                real(descriptor)
                with self._log.open("a") as log:
                    log.write(json.dumps(_vouched_for(descriptor)) + "\n")

            os.fsync = fsync  # type: ignore[assignment]
            return job(dataset)

        return work

    def cut(self, mode: str, dice: random.Random) -> Path:
        bytes_kept, names_kept = self._vouched()
        gone: set[Path] = set()
        for path in sorted(self.root.rglob("*")):
            if path.parent in gone or path.name == "":
                gone.add(path)
                continue
            after = self._after / path.relative_to(self.root)
            inode = path.lstat().st_ino
            old = self._before.get(path) == inode
            named = old or names_kept.get((path.parent, path.name)) == inode
            whole = old or path.is_dir() or inode in bytes_kept
            keeps_name = named or mode == EMPTIED or (mode == DRAWN and dice.random() < 0.5)
            if not keeps_name:
                gone.add(path)
            elif path.is_dir():
                after.mkdir(parents=True, exist_ok=True)
            else:
                keeps_bytes = whole or (mode == DRAWN and dice.random() < 0.5)
                after.parent.mkdir(parents=True, exist_ok=True)
                after.write_bytes(path.read_bytes() if keeps_bytes else b"")
        return self._after

    def end(self) -> None:
        for folder in (self.root, self._after):
            shutil.rmtree(folder, ignore_errors=True)

    def _vouched(self) -> tuple[set[int], dict[tuple[Path, str], int]]:
        """Return the inodes whose bytes, and the (folder, name) -> inode entries that were fsynced."""
        inodes: set[int] = set()
        names: dict[tuple[Path, str], int] = {}
        for line in self._log.read_text().splitlines():
            each = json.loads(line)
            if "names" in each:
                names |= {(Path(each["path"]), name): inode for name, inode in each["names"].items()}
            else:
                inodes.add(each["inode"])
        return inodes, names


def _vouched_for(descriptor: int) -> dict[str, object]:
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            return {"path": path, "names": {entry.name: entry.inode() for entry in entries}}
    return {"inode": os.fstat(descriptor).st_ino}


class LoopDisk:
    """ext4 on a loop device; the image is copied under a frozen job. Needs root."""

    modes: tuple[str, ...] = ("as ext4 left it", "some files written back")

    def __init__(self, folder: Path) -> None:
        self._image, self._copy = folder / "disk.img", folder / "copy.img"
        self._on, self._after = folder / "on", folder / "after"
        self.root = self._on / "dataset"
        self._mounted: list[Path] = []

    @staticmethod
    def is_possible(folder: Path) -> bool:
        """Whether this machine lets us mount a loop device."""
        disk = LoopDisk(folder)
        try:
            disk._make()
        except (OSError, subprocess.CalledProcessError):
            return False
        disk.end()
        return True

    def begin(self, template: Path) -> None:
        self._make()
        shutil.copytree(template, self.root)
        os.sync()

    def watched(self, job: Job) -> Job:
        return job

    def cut(self, mode: str, dice: random.Random) -> Path:
        if mode == self.modes[1]:  # the kernel writes files back in an order of its own
            files = [path for path in self.root.rglob("*") if path.is_file()]
            for path in dice.sample(files, len(files) // 2):
                _fsync(path)
        subprocess.run(["cp", "--sparse=always", self._image, self._copy], check=True)
        self._mount(self._copy, self._after)
        return self._after / "dataset"

    def end(self) -> None:
        for folder in reversed(self._mounted):
            subprocess.run(["umount", folder], check=True)
        self._mounted.clear()

    def _make(self) -> None:
        self._image.parent.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True, capture_output=True)
        self._mount(self._image, self._on)

    def _mount(self, image: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "loop", image, folder], check=True, capture_output=True)
        self._mounted.append(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One power cut: at a step of a job (None: right after it has returned), with what becomes of unsynced files."""

    name: str
    template: Path
    job: Job
    at: int | None
    mode: str

    @property
    def when(self) -> str:
        return f"power cut {'after' if self.at is None else f'at step {self.at} of'} {self.name}, {self.mode}"


def power_cuts(
    folder: Path, disk: Disk, count: int, dice: random.Random, tally: Tally, names: Iterable[str] = tuple(JOBS)
) -> None:
    """Cut the power `count` times, at steps drawn at random among these jobs, all their steps and the disk's modes."""
    cuts = every_cut(folder, disk, names)
    for cut in dice.sample(cuts, min(count, len(cuts))):
        if not tally.over:
            one_cut(disk, cut, dice, tally)


def every_cut(folder: Path, disk: Disk, names: Iterable[str]) -> list[Cut]:
    """Prepare a dataset for each of these jobs, count its steps, and give each cut."""
    base = folder / "base"
    folder.mkdir(parents=True, exist_ok=True)
    create(str(base))
    done(Worker(str(base), make_base))
    cuts = []
    for name in names:
        prepare, job = JOBS[name]
        template, trial = folder / name.replace(" ", "-"), folder / "trial"
        shutil.copytree(base, template)
        done(Worker(str(template), prepare))
        shutil.copytree(template, trial)
        steps = done(Worker(str(trial), job)).steps
        shutil.rmtree(trial)
        cuts += [
            Cut(name=name, template=template, job=job, at=at, mode=mode)
            for at in (*range(steps), None)
            for mode in disk.modes
        ]
    return cuts


def one_cut(disk: Disk, cut: Cut, dice: random.Random, tally: Tally) -> None:
    """Cut the power once; what was acknowledged must be there, and the next run must complete the dataset."""
    with _running(disk, cut) as ended:
        tally.faults[f"{POWER_CUT}: {cut.name}"] += 1
        before = in_child(lambda: acknowledged(disk.root, cut.template if not ended else disk.root))
        root = disk.cut(cut.mode, dice)
        after = in_child(lambda: acknowledged(root, root))
        tally.findings += [
            Finding(
                kind="lost", thing=f"acknowledged {key.partition('/')[0]}", what=f"{cut.when}: {key}: {now}, was {was}"
            )
            for key, was in before.items()
            if (now := after.get(key)) != was
        ]
        uri, files = str(root), lambda: FolderFiles(root)
        look(uri, files, tally, complete=False, when=cut.when)
        finished(Worker(uri, finish_and_clean).wait(), tally)
        look(uri, files, tally, complete=True, when=f"{cut.when}, and finished")


@contextmanager
def _running(disk: Disk, cut: Cut) -> Iterator[bool]:
    """The job stopped before the step of the cut, or ended; gives whether it ended."""
    disk.begin(cut.template)
    worker = Worker(str(disk.root), disk.watched(cut.job), Strike(at=cut.at, signal=FREEZE))
    try:
        stopped = worker.wait_for_stop()
        yield not stopped
    finally:
        worker.kill()
        worker.wait()
        disk.end()


def acknowledged(root: Path, known: Path) -> dict[str, str]:
    """What a person could rely on: by key, what each plan, record, done fold and snapshot in `known` says in `root`.

    A snapshot says the rows of its four tables.
    """
    files = FolderFiles(root)
    checker = Checker(files)
    said: dict[str, str] = {}
    for prefix in ACKNOWLEDGED:
        for key in FolderFiles(known).keys(prefix):
            said[key] = _attempted(lambda key=key: hashlib.sha256(files.get(key)).hexdigest())  # type: ignore[misc]
            if prefix == "snapshots/":
                said[f"{key} rows"] = _attempted(lambda key=key: _rows_of(checker, json.loads(files.get(key))))  # type: ignore[misc]
    return said


def _rows_of(checker: Checker, snapshot: dict) -> str:  # type: ignore[type-arg]
    counts = {name: len(checker.rows(snapshot["folder"], name, snapshot["versions"][name])) for name in TABLES}
    return json.dumps(counts)


def _attempted(call: Callable[[], str]) -> str:
    try:
        return call()
    except (KeyError, ValueError, OSError) as error:
        return f"unreadable: {error!r}"
