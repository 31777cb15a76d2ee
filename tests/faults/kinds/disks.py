"""Disks whose power can be cut, and what is on them afterwards.

`SimulatedDisk` works anywhere and is stricter than any file system: of the files a job has written, the disk keeps only
what fsync vouches for, the bytes of a file that was fsynced and the names in a folder that was fsynced since;
everything else is lost, emptied or kept, as the mode or the dice say. `LoopDisk` is a real ext4 on a loop device (it
needs root): the image is copied while the job stands still, and the copy is mounted, which replays the journal as a
reboot does.
"""

import json
import os
import random
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Protocol

from storage.dataset import Dataset
from tests.faults.datasets import copy_dataset, note_probe
from tests.faults.processes import Job

LOST, EMPTIED, DRAWN, BY_FOLDER = "lost", "emptied", "drawn at random", "drawn folder by folder"
"""What becomes of a file that nobody fsynced: no name; a name without bytes; one of these, or the whole file.

Folder by folder: the names in one folder have all arrived and those in another have not, and the same for the bytes, as
a file system writes back its folders one by one.
"""
MODES = (LOST, EMPTIED, DRAWN, BY_FOLDER)
IMAGE_BYTES = 48 << 20


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


class Arrivals:
    """Which names and bytes that nobody fsynced have reached the disk all the same."""

    def __init__(self, mode: str, dice: random.Random) -> None:
        self._mode, self._dice = mode, dice
        self._by_folder: dict[tuple[Path, str], bool] = defaultdict(self._drawn)

    def name(self, path: Path) -> bool:
        return self._mode == EMPTIED or self._has(path, "names")

    def bytes(self, path: Path) -> bool:
        return self._has(path, "bytes")

    def _has(self, path: Path, what: str) -> bool:
        if self._mode == BY_FOLDER:
            return self._by_folder[path.parent, what]
        return self._mode == DRAWN and self._drawn()

    def _drawn(self) -> bool:
        return self._dice.random() < 0.5


class SimulatedDisk:
    """Keeps of a job's files what fsync vouches for."""

    modes: tuple[str, ...] = MODES

    def __init__(self, folder: Path) -> None:
        self.root, self._after, self._log = folder / "on", folder / "after", folder / "fsyncs"
        self._before: dict[Path, int] = {}

    def begin(self, template: Path) -> None:
        self.end()
        copy_dataset(template, self.root)
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
        arrived = Arrivals(mode, dice)
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
            keeps_name = named or arrived.name(path)
            if not keeps_name:
                gone.add(path)
            elif path.is_dir():
                after.mkdir(parents=True, exist_ok=True)
            else:
                keeps_bytes = whole or arrived.bytes(path)
                after.parent.mkdir(parents=True, exist_ok=True)
                after.write_bytes(path.read_bytes() if keeps_bytes else b"")
        note_probe(self._after)
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
        copy_dataset(template, self.root)
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
        note_probe(self._after / "dataset")
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
