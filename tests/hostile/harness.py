"""Hostile photos, by the thousand, through the real command: each becomes an image or a reject, and nothing ends.

    python -m tests.hostile.harness [--photos 2000] [--mutated 0] [--threads 2] [--seed 0] [--folder /tmp]

`--photos` are files of photos.py that explode, lie, loop or end too soon; `--mutated` are damaged copies of good files.
`gigamask ingest` takes them, and its processes are watched meanwhile. One JSON line a figure, the last one with the
sums: `photos`; `images` and `rejects`, which the tables hold; `unanswered`, photos that are neither or both; `deaths`,
processes of the command that ended in the middle (decoders that were replaced, and the command itself); `peak_mib`, the
most that one process held, and `tree_peak_mib`, all of them together. Exit status 1 where `unanswered` or `deaths` is
not 0, where a process held over 2 GiB, or where `verify` names a fault.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from storage.dataset import Dataset
from tests.benchmarks.json_lines import machine
from tests.hostile.photos import hostile_photos, mutated_photos
from tests.paths import ROOT

MAX_PEAK_MIB = 2048
"""Most memory that a process of the command may hold."""
_GIGAMASK = "import sys; from flows.cli.main import main; sys.exit(main())"


@dataclass(kw_only=True)
class Watched:
    """Observation of a command and the processes below it."""

    status: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0
    """Most memory that one process held."""
    tree_peak_mib: float = 0.0
    """Most memory that all of them held together, as seen every twentieth of a second."""
    decoders: set[int] = field(default_factory=set)
    """Process ids of the decoders."""


def main() -> None:
    """Make the photos, ingest them and print what became of them."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gigamask-hostile-") as name:
        sums = run(Path(name), arguments.photos, arguments.mutated, arguments.threads, arguments.seed)
    print(json.dumps(sums), flush=True)
    bad = sums["unanswered"] or sums["deaths"] or sums["faults"] or sums["peak_mib"] > MAX_PEAK_MIB
    sys.exit(bool(bad))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=0, help="hostile files; 2000 if there are no mutated ones either")
    parser.add_argument("--mutated", type=int, default=0, help="damaged copies of good files")
    parser.add_argument("--threads", type=int, default=2, help="ingest.threads: decoders at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where files and dataset lie; default: the temporary folder")
    arguments = parser.parse_args()
    arguments.photos = arguments.photos or (0 if arguments.mutated else 2000)
    return arguments


def run(folder: Path, photos: int, mutated: int, threads: int, seed: int) -> dict[str, float]:
    """Ingest so many hostile and mutated photos, print a line a figure, and return the sums."""
    # The files
    given = folder / "given"
    given.mkdir()
    names = []
    for kind, made in (("hostile", hostile_photos(photos, seed)), ("mutated", mutated_photos(mutated, seed))):
        for name, data in made:
            (given / f"{kind}-{name}").write_bytes(data)
            names.append(f"given/{kind}-{name}")

    # The command
    command = ["ingest", str(given), "--dataset", str(folder / "dataset"), f"--set=ingest.threads={threads}"]
    watched = watch([sys.executable, "-c", _GIGAMASK, *command])

    # What the dataset says of each file
    dataset = Dataset.open(folder / "dataset")
    dataset.fold()
    images = dataset.query("SELECT source FROM images").column("source").to_pylist()
    rejects = dataset.query("SELECT source, reason FROM rejects").to_pylist()
    faults = dataset.maintenance.verify().faults
    answers = Counter([*images, *(row["source"] for row in rejects)])
    unanswered = [name for name in names if answers.pop(name, 0) != 1]
    for reason, count in Counter(row["reason"] for row in rejects).most_common():
        print(json.dumps({"bench": "hostile", "metric": f"rejects: {reason}", "value": count, "unit": "photos"}))
    for name in [*unanswered[:20], *list(answers)[:20], *map(str, faults)]:
        print(f"not once an image or a reject, or a fault: {name}", file=sys.stderr)
    print(json.dumps({"bench": "hostile", "metric": "machine", "value": machine(), "seed": seed, "threads": threads}))
    return {
        "photos": len(names),
        "images": len(images),
        "rejects": len(rejects),
        "unanswered": len(unanswered) + len(answers),
        "deaths": int(watched.status != 0) + max(0, len(watched.decoders) - threads),
        "faults": len(faults),
        "peak_mib": round(watched.peak_mib),
        "tree_peak_mib": round(watched.tree_peak_mib),
        "seconds": round(watched.seconds, 1),
    }


def watch(command: list[str]) -> Watched:
    """Run a command, and look at the memory of its processes twenty times a second."""
    watched = Watched()
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    while process.poll() is None:
        held = [_memory_mib(pid) for pid in _tree(process.pid, watched.decoders)]
        watched.tree_peak_mib = max(watched.tree_peak_mib, sum(now for now, _ in held))
        watched.peak_mib = max([watched.peak_mib, *(peak for _, peak in held)])
        time.sleep(0.05)
    watched.status, watched.seconds = process.returncode, time.monotonic() - began
    return watched


def _tree(root: int, decoders: set[int]) -> list[int]:
    """List a process and its children, and note which of them are decoders."""
    pids = [root]
    for task in _read(f"/proc/{root}/task/", is_folder=True).split():
        for child in map(int, _read(f"/proc/{root}/task/{task}/children").split()):
            pids.append(child)
            if "decoder_process" in _read(f"/proc/{child}/cmdline"):
                decoders.add(child)
    return pids


def _memory_mib(pid: int) -> tuple[float, float]:
    """Return what a process holds now and the most it ever held; 0 for one that has ended."""
    fields = dict(line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line)
    now, peak = (int(fields.get(name, "0 kB").split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def _read(path: str, *, is_folder: bool = False) -> str:
    try:
        return " ".join(os.listdir(path)) if is_folder else Path(path).read_text()
    except OSError:  # the process ended meanwhile
        return ""


if __name__ == "__main__":
    main()
