"""The fully automatic stage under fire: `gigamask masks` on Ray, its workers and its driver killed at random.

    python -m tests.faults.stage [--shards 100] [--kills 16] [--seed 0] [--folder /tmp]

Two real Ray nodes of a core each, a network with random weights and small photographs. A quarter of the
kills hit the driver, which is then started again; the others a worker. When they come is drawn by shards committed, not
by time, so that a slow machine sees the same. At the end the bytes are checked without the dataset's code (checker.py):
every shard committed once, every mask there once, pixel by pixel as the generator makes it here. Work done twice is
counted in photographs begun. One JSON line a figure; exit status 1 where something is lost, doubled, or made again too
often.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ray.cluster_utils import Cluster

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import generate_masks
from engine.images import decode
from engine.model.weights import load_model
from stages.fully_automatic.plan import plan_masks
from stages.ingest.ingest import ingest_photos
from storage import rle
from storage.dataset import Dataset
from tests.faults.checks.checker import Checker, Record, differences, digest
from tests.faults.checks.files import Files, FolderFiles
from tests.faults.checks.findings import Finding
from tests.paths import ROOT
from tests.tiny_network import save_tiny_model

PHOTOS_PER_SHARD = 2
WORKERS = 2
SHARE_OF_DRIVER = 0.25
ALLOWED_BEYOND_KILLS = 0.05  # of the shards
PATIENCE_S = 900.0  # for one driver
CONFIG = GenerateConfig(
    points_per_side=3,
    predicted_iou_threshold=-100.0,
    box_nms_threshold=1.01,
    min_region_px=0,
    max_area_fraction=1.0,
)  # 27 masks a photograph


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gigamask-stage-faults-") as name:
        figures, findings = run(Path(name), arguments.shards, arguments.kills, random.Random(arguments.seed))
    figures["seconds"] = (round(time.monotonic() - began, 1), "s")
    for metric, (value, unit) in figures.items():
        line = {"bench": "stage faults", "metric": metric, "value": value, "unit": unit, "seed": arguments.seed}
        print(json.dumps(line), flush=True)
    for finding in findings[:40]:
        print(finding, file=sys.stderr, flush=True)
    sys.exit(bool(findings) or figures["rework"][0] > figures["rework allowed"][0])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--kills", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the dataset lies meanwhile; default: the temporary folder")
    return parser.parse_args()


def run(folder: Path, shards: int, kills: int, dice: random.Random) -> tuple[dict[str, tuple[float, str]], list[str]]:
    """Figures with their units, and what was found wrong."""
    dataset, weights = make_dataset(folder, shards), save_tiny_model(folder)
    expected = expected_masks(shards, weights)
    (plan,) = plan_masks(dataset, load_model(weights).identity, CONFIG, images_per_shard=PHOTOS_PER_SHARD)
    assert len(plan.shards) == shards
    whom = ["driver"] * max(1, round(kills * SHARE_OF_DRIVER))
    whom += ["worker"] * (kills - len(whom))
    dice.shuffle(whom)
    moments = sorted(dice.sample(range(1, shards), kills))  # a kill each once so many shards are committed
    with ray_nodes() as address:
        fire = Fire(folder, dataset, weights, plan.home, address, dice)
        for moment, victim in zip(moments, whom, strict=True):
            fire.kill_at(moment, victim)
        fire.finish()
    findings = StageChecker(FolderFiles(Path(dataset.uri)), expected).check(complete=True)
    commits = sorted((Path(dataset.uri) / "commits" / plan.home).iterdir())
    begun = len(fire.begun.read_text().splitlines())
    rework = begun / PHOTOS_PER_SHARD - shards
    figures: dict[str, tuple[float, str]] = {
        "shards": (shards, "shards"),
        "commit records": (len(commits), "records"),
        "masks checked": (sum(len(masks) for masks in expected.values()), "masks"),
        "workers killed": (whom.count("worker"), "kills"),
        "drivers killed": (whom.count("driver"), "kills"),
        "findings": (len(findings), "findings"),
        "photographs begun": (begun, "photographs"),
        "rework": (round(rework, 2), "shards"),
        "rework allowed": (round(kills + ALLOWED_BEYOND_KILLS * shards, 2), "shards"),
    }
    wrong = [str(finding) for finding in findings]
    return figures, wrong if len(commits) == shards else [*wrong, f"{len(commits)} records of {shards} shards"]


@contextmanager
def ray_nodes() -> Iterator[str]:
    """The address of a head without cores and two nodes of one, children of this process."""
    os.environ |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_WAIT_POLICY": "PASSIVE"}
    small: dict[str, Any] = {"num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(WORKERS):
            cluster.add_node(num_cpus=1, **small)
        yield cluster.address
    finally:
        cluster.shutdown()


class Fire:
    """One driver after the other over the same plan, and the kills."""

    def __init__(
        self, folder: Path, dataset: Dataset, weights: Path, home: str, address: str, dice: random.Random
    ) -> None:
        self.begun = folder / "begun"
        self._folder, self._dice = folder, dice
        self._commits = Path(dataset.uri) / "commits" / home
        settings = [f"generate.{name}={getattr(CONFIG, name)}" for name in CHANGED]
        self._command = [sys.executable, "-m", "tests.faults.stage_driver", str(self.begun), "masks"]
        self._command += ["--dataset", dataset.uri, "--model", str(weights), "--json", "--ray-address", address]
        for setting in [*settings, f"pool.workers={WORKERS}", "pool.threads=1"]:
            self._command += ["--set", setting]
        self._gone: set[int] = set()  # workers that ended, or will, with their driver
        self._driver = self._start()

    def kill_at(self, moment: int, victim: str) -> None:
        """Once so many shards are committed: kills a worker that is at work, or the driver."""
        while self._committed() < moment or not self._workers():
            self._look()
        time.sleep(self._dice.random() * 0.5)  # anywhere in a shard
        while not (workers := self._workers()):
            self._look()
        if victim == "driver":
            self._gone |= set(workers)
            self._driver.kill()
            self._driver.wait()
            self._driver = self._start()
        else:
            os.kill(self._dice.choice(workers), signal.SIGKILL)

    def finish(self) -> None:
        code = self._driver.wait(timeout=PATIENCE_S)
        assert code == 0, f"the last driver ended with {code}: {self._errors().read_text()[-2000:]}"

    def _start(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        with self._errors().open("ab") as errors:
            return subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)

    def _errors(self) -> Path:
        return self._folder / "errors"

    def _look(self) -> None:
        time.sleep(0.05)
        waited = time.monotonic() - self._started
        if self._driver.poll() is not None or waited > PATIENCE_S:
            raise AssertionError(f"a driver ended by itself or hangs: {self._errors().read_text()[-2000:]}")

    def _committed(self) -> int:
        return sum(1 for _ in self._commits.glob("*.json")) if self._commits.exists() else 0

    def _workers(self) -> list[int]:
        """Process ids of the driver's Ray actors."""
        pids = [pid for pid in descendants(os.getpid()) if command_of(pid).startswith("ray::ShardActor")]
        return [pid for pid in pids if pid not in self._gone]


CHANGED = [name for name in CONFIG.__dataclass_fields__ if getattr(CONFIG, name) != getattr(GenerateConfig(), name)]


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:  # it ended
            continue
        for child in children:
            yield int(child)
            yield from descendants(int(child))


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def make_dataset(folder: Path, shards: int) -> Dataset:
    """One image shard with the photographs of so many mask shards."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(shards * PHOTOS_PER_SHARD):
        (photos / f"{number}.jpg").write_bytes(photo(number))
    dataset = Dataset.create(folder / "dataset")
    ingest_photos([photos], dataset)
    assert len(dataset.image_shards()) == 1, f"at most {256 // PHOTOS_PER_SHARD} shards"
    return dataset


def photo(number: int) -> bytes:
    """JPEG bytes of a small photograph, another for each number."""
    coarse_HW3 = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse_HW3, (96, 64), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def expected_masks(shards: int, weights: Path) -> dict[int, list[str]]:
    """Digests of each photograph's masks by its number, from the generator itself, away from Ray and the dataset."""
    model = load_model(weights)
    return {
        number: [digest(rle.decode(mask.rle)) for mask in generate_masks(model, decode(photo(number)), CONFIG).masks]
        for number in range(shards * PHOTOS_PER_SHARD)
    }


class StageChecker(Checker):
    """The checker, for photographs that were ingested and masks that the generator made."""

    def __init__(self, files: Files, expected: dict[int, list[str]]) -> None:
        super().__init__(files)
        self._expected = {id_of(photo(number)): masks for number, masks in expected.items()}

    def image_findings(self, newest: dict[tuple[str, str], Record]) -> list[Finding]:
        """Every photograph once."""
        shards = [record for record in newest.values() if record.fields["kind"] == "images"]
        found = Counter(image for shard in shards for image in self.images_in_order(shard))
        return differences("image", Counter(self._expected.keys()), found)

    def masks_of(self, record: Record) -> Iterator[tuple[int, str]]:
        address, run = self.inputs_of(record)
        start, stop = run.split(":")
        for image in self.images_in_order(self.record(f"commits/{address}.json"))[int(start) : int(stop)]:
            yield from ((image, mask) for mask in self._expected[image])

    def images_in_order(self, record: Record) -> list[int]:
        """Ids of an image shard's photographs, from their bytes."""
        members = [member for part in record.parts("tar") for member in self.members(part)]
        return [id_of(data) for name, _, data in members if name.endswith(".jpg")]


def id_of(data: bytes) -> int:
    """First 63 bits of the file's SHA-256."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1


if __name__ == "__main__":
    main()
