"""Reads what a loop left behind without the loop's code: masks, decisions, models, and the rows of its rounds.

Bytes are read by json, tarfile, pycocotools and Parquet files alone, rows of rounds by plain SQL.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from tests.faults.checks.checker import Checker, differences, digest
from tests.faults.checks.files import FolderFiles
from tests.faults.checks.findings import DAMAGED, DOUBLED, FOREIGN, LOST, TORN, UNFINISHED, Finding
from tests.faults.rounds.databases import Rows

COUNTED = ("submitted", "accepted")
"""States of submissions that count."""
ARMS = ("new masks", "control")


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a loop left behind."""

    masks: Counter[tuple[str, str, int, str]]
    """Dataset, name of the round (or the stage of masks of no round), image and digest of the pixels."""
    models: Counter[tuple[str, str]]
    """SHA-256 of the weights, and that of the parent's."""
    decisions: tuple[tuple[str, str, str], ...]
    """Decision, weights of the model, and weights of the promoted model from then on."""
    findings: tuple[Finding, ...]


class PoolChecker(Checker):
    """The checker of a dataset, for masks of rounds, models and decisions."""

    def sound_findings(self) -> list[Finding]:
        """Every object whole, and every mask of a shard in the table once."""
        findings = self.object_findings()
        if findings:
            return findings
        in_shards = Counter((image_id, mask_id) for image_id, mask_id, _ in self.drawn)
        in_table = Counter((row["image_id"], row["mask_id"]) for row in self.mask_rows)
        doubled = differences("mask id", Counter(set(in_shards)), in_shards)
        return findings + self.generation_findings() + doubled + differences("row of masks", in_shards, in_table)

    @cached_property
    def drawn(self) -> list[tuple[int, int, str]]:
        """Image, mask id and digest of the pixels of every mask in the shards."""
        found = []
        for record in self.newest_records(self.records.values()).values():
            if record.kind == "masks":
                for part in record.parts("tar"):
                    for _, _, data in self.members(part):
                        document = json.loads(data)
                        image = document["image"]["image_id"]
                        found += [
                            (image, a["id"], digest(coco.decode(a["segmentation"]))) for a in document["annotations"]
                        ]
        return found

    @cached_property
    def mask_rows(self) -> list[dict[str, Any]]:
        done = self.done(self.newest_done())
        return self.rows(done["folder"], "masks", done["versions"]["masks"])

    @cached_property
    def cards(self) -> dict[str, dict[str, Any]]:
        """Cards of the models by id."""
        keys = [key for key in self.files.keys("models") if key.endswith("/model.json")]
        return {key.split("/")[1]: json.loads(self.files.get(key)) for key in keys}

    @cached_property
    def generations(self) -> list[dict[str, Any]]:
        """Decisions, oldest first."""
        return [json.loads(self.files.get(key)) for key in self.files.keys("promotions")]

    def weights(self, model_id: str) -> str:
        return hashlib.sha256(self.files.get(f"models/{model_id}/model.safetensors")).hexdigest()

    def model_findings(self) -> Iterator[Finding]:
        """Every model is named by the weights that lie there."""
        for model_id in self.cards:
            found = self.weights(model_id)
            if not model_id.endswith(found[:12]):
                yield Finding(kind=DAMAGED, thing="model", what=f"{model_id} has weights {found}")

    def decision_findings(self) -> Iterator[Finding]:
        """The decisions are a chain, each made once, and each says what follows from it."""
        previous, promoted, seen = "", "", Counter[str]()
        for number, (key, each) in enumerate(zip(self.files.keys("promotions"), self.generations, strict=True), 1):
            if (each["number"], each["previous"]) != (number, previous):
                yield Finding(kind=TORN, thing="decision", what=f"{key} does not follow from the one before")
            previous = hashlib.sha256(self.files.get(key)).hexdigest()
            after = promoted if each["decision"] == "refusal" else each["model_id"]
            if (each["over"], each["promoted"]) != (promoted, after):
                yield Finding(kind=FOREIGN, thing="decision", what=f"{key} is over {each['over']}, not {promoted}")
            promoted = each["promoted"]
            seen[each["model_id"]] += each["decision"] != "start"
        for model_id, count in seen.items():
            if count > 1:
                yield Finding(kind=DOUBLED, thing="decision", what=f"{count} about {model_id}")


def read_left(work: Path, places: Mapping[str, str], result: Mapping[str, Any]) -> Left:
    """Look at what one seed of a loop left behind.

    Args:
        work: Folder of the seed.
        places: Addresses of the workspaces by the name of their dataset: pool and measured.
        result: What the command printed.
    """
    findings, masks = list[Finding](), Counter[tuple[str, str, int, str]]()
    checkers = {name: PoolChecker(FolderFiles(work / name / "dataset")) for name in places}
    wanted = [f"round {arm['round']}, {arm['arm']}" for arm in (*result["start"], *result["rounds"])]
    rounds = sorted({arm["round"] for arm in result["rounds"]})
    for name, checker in checkers.items():
        findings += checker.sound_findings()
        names = wanted if name == "measured" else [f"round {number}" for number in rounds]
        of_round = _read_rounds(places[name], names, checker.mask_rows, findings)
        asked = {
            (row["image_id"], row["mask_id"]): of_round.get(row["round_id"], row["stage"]) for row in checker.mask_rows
        }
        masks.update((name, asked.get((image, mask), "?"), image, pixels) for image, mask, pixels in checker.drawn)
    for (name, asked_by, image, _), count in masks.items():
        if count > 1 and asked_by.startswith("round"):
            findings.append(Finding(kind=DOUBLED, thing="mask", what=f"{count} times in {name}, {asked_by}, {image}"))
    pool = checkers["pool"]
    findings += [*pool.model_findings(), *pool.decision_findings(), *_arm_findings(pool, result["rounds"])]
    parents = {model_id: card["parent"] for model_id, card in pool.cards.items()}
    return Left(
        masks=masks,
        models=Counter((pool.weights(each), pool.weights(of) if of else "") for each, of in parents.items()),
        decisions=tuple(
            (each["decision"], pool.weights(each["model_id"]), pool.weights(each["promoted"]))
            for each in pool.generations
        ),
        findings=tuple(findings),
    )


def _read_rounds(
    place: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]], findings: list[Finding]
) -> dict[str, str]:
    """Map the ids of the rounds to their names; each is there once, closed, and its answers are in the dataset."""
    with Rows(place) as read:
        found = read.of("SELECT * FROM rounds")
        tasks = read.of("SELECT round_id, task_id FROM tasks")
        answers = read.of(
            "SELECT t.round_id, s.task_id, s.masks FROM submissions s JOIN tasks t ON t.task_id = s.task_id "
            f"WHERE s.state IN {COUNTED}"
        )
    findings += differences("round", Counter(names), Counter(each["name"] for each in found))
    for each in found:
        round_id, name = each["round_id"], each["name"]
        if each["state"] != "closed":
            findings.append(Finding(kind=UNFINISHED, thing="round", what=f"{name} is {each['state']}"))
        own = [answer for answer in answers if answer["round_id"] == round_id]
        asked = Counter(task["task_id"] for task in tasks if task["round_id"] == round_id)
        findings += differences("answer", asked, Counter(answer["task_id"] for answer in own), where=name)
        wanted, stored = sum(answer["masks"] for answer in own), sum(row["round_id"] == round_id for row in rows)
        if wanted != stored:
            kind = LOST if stored < wanted else DOUBLED
            findings.append(Finding(kind=kind, thing="mask", what=f"{name}: {stored} masks of {wanted} submitted ones"))
    return {each["round_id"]: each["name"] for each in found}


def _arm_findings(pool: PoolChecker, arms: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Both models of a round come from the model that was promoted then; that with the new masks was decided about."""
    for number in sorted({arm["round"] for arm in arms}):
        new, control = (next(arm for arm in arms if (arm["round"], arm["arm"]) == (number, name)) for name in ARMS)
        decided = [each for each in pool.generations if each["model_id"] == new["model_id"]]
        if not decided:
            yield Finding(kind=LOST, thing="decision", what=f"none about {new['model_id']} of round {number}")
            continue
        for arm in (new, control):
            parent = pool.cards[arm["model_id"]]["parent"]
            if parent != decided[0]["over"]:
                what = f"{arm['arm']} of round {number} was trained from {parent}, not {decided[0]['over']}"
                yield Finding(kind=FOREIGN, thing="model", what=what)
