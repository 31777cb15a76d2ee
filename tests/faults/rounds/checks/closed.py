"""What closing a round has left in the dataset, read from its bytes: each stated mask once, with its provenance."""

import json
from collections import Counter
from typing import Any

from pycocotools import mask as coco

from tests.faults.checks.checker import Checker, Record, differences
from tests.faults.checks.files import Files, parquet_rows
from tests.faults.checks.findings import DOUBLED, FOREIGN, LOST, Finding
from tests.faults.checks.table_rows import withdrawn_masks
from tests.faults.rounds.checks.answers import Mask, Story, answers_of, withdrawn_of
from tests.faults.rounds.checks.refold import digest, document
from tests.faults.rounds.checks.workspace_rows import Row, Tables


class RoundChecker(Checker):
    """One look at a dataset whose rounds lie in a workspace.

    `taken_back`: pairs of round and annotator whose masks were withdrawn after closing; `for_certain`: whether that is
    done, or may still be to do.
    """

    def __init__(
        self, files: Files, tables: Tables, taken_back: frozenset[tuple[str, str]], *, for_certain: bool = True
    ) -> None:
        super().__init__(files)
        self.tables, self.taken_back, self.for_certain = tables, taken_back, for_certain

    def check(self, *, complete: bool) -> list[Finding]:
        findings = super().check(complete=complete)
        if not findings:
            findings += self.round_findings()
        return findings

    def mask_findings(self, newest: dict[tuple[str, str], Record]) -> list[Finding]:
        """The masks that no round made, as for any dataset."""
        made = {place: each for place, each in newest.items() if not self.round_of(each)}
        return super().mask_findings(made)

    def masks_made(self, record: Record) -> frozenset[tuple[int, str]]:
        """The masks of a round clash with none."""
        return frozenset() if self.round_of(record) else super().masks_made(record)

    def round_of(self, record: Record) -> str:
        """The round that a mask shard is of; empty for none."""
        settings = self.plan_settings(record)
        return str(settings.get("round_id", "") or settings.get("withdrawn_round", ""))

    def round_findings(self) -> list[Finding]:
        """Masks of each round in the tables; all of a closed one, some or none of one that is being closed."""
        done = self.done(self.newest_done())
        rows = self.rows(done["folder"], "masks", done["versions"]["masks"])
        annotations = self.rows(done["folder"], "annotations", done["versions"]["annotations"])
        there = {(row["image_id"], row["mask_id"]) for row in rows}
        withdrawn = withdrawn_masks(self, self.newest_records(self.records.values()).values())
        replaced: set[tuple[int, int]] = set()
        findings = self.plan_findings()
        before, after = (Story(self.tables, states) for states in (("closed",), ("closed", "closing")))
        for found in self.tables.rounds:
            round_id, state = found["round_id"], found["state"]
            answers = answers_of(self.tables, round_id)
            replaced |= answers.replaced if state in ("closing", "closed") else set()
            got = Counter(self.mask_of(row) for row in rows if row["round_id"] == round_id)
            stated = after.masks.get(round_id, Counter())
            # Another round that is being closed takes the place of some masks, and may have done so or not
            stated = +stated + (got & (before.masks.get(round_id, Counter()) - stated))
            without = withdrawn_of(found)
            expected = answers_of(self.tables, round_id, without).masks if without else stated
            if state == "closing":  # a withdrawal under way has done some shards
                expected = expected | stated
            findings += self.compared(state, expected, got, f"masks of {round_id}")
            if state == "closed":
                findings += self.withdrawn_findings(found, answers.replaced, there)
            own = Counter(
                (row["image_id"], row["annotator_id"], row["origin"])
                for row in annotations
                if row["round_id"] == round_id
            )
            findings += self.compared(state, answers.rows, own, f"annotations of {round_id}")
            if state == "closed" and answers.replaced & there:
                what = f"{round_id} replaced {sorted(answers.replaced & there)}, which are still there"
                findings.append(Finding(kind=DOUBLED, thing="replaced mask", what=what))
        return findings + self.withdrawal_findings(withdrawn, replaced, after.superseded)

    def withdrawn_findings(
        self, found: Row, replaced: frozenset[tuple[int, int]], there: set[tuple[int, int]]
    ) -> list[Finding]:
        """Whose work was to be withdrawn has none, and the masks that they alone had replaced stand again."""
        round_id, without = found["round_id"], withdrawn_of(found)
        wanted = {annotator for name, annotator in self.taken_back if name == round_id}
        if self.for_certain and wanted - set(without):
            what = f"{wanted} are to be withdrawn from {round_id}, and are not"
            return [Finding(kind=LOST, thing="withdrawal", what=what)]
        given = {
            each.source: (row["image_id"], each.pixels)
            for row in self.tables.tasks
            if row["round_id"] == round_id
            for each in self.tables.prefill(row["task_id"]).values()
        }
        back = replaced - answers_of(self.tables, round_id, without).replaced
        expected = Counter(given[f"{image_id}/{mask_id}"] for image_id, mask_id in back)
        got = Counter(
            (image_id, digest(coco.decode(mask["segmentation"])))
            for record in self.records.values()
            if self.plan_settings(record).get("withdrawn_round") == round_id
            for image_id, mask in self.stored_masks(record)
            if (image_id, mask["id"]) in there
        )
        return differences("mask", expected, got, f"masks that came back after {round_id}")

    def plan_settings(self, record: Record) -> dict[str, Any]:
        """Settings of a record's plan."""
        settings: dict[str, Any] = self.plan(record.fields["made_by"])["settings"]
        return settings

    def compared(self, state: str, expected: Counter[Any], got: Counter[Any], where: str) -> list[Finding]:
        if state == "closed":
            return differences("answer", expected, got, where)
        if state == "closing":  # each shard is there whole, or not yet
            return differences("answer", expected & got, got, where)
        return differences("answer", Counter(), got, where)

    def mask_of(self, row: dict[str, Any]) -> Mask:
        """What a row of the table `masks` says, and the pixels of the file that it names."""
        (document,) = (
            document
            for record in self.records.values()
            for part in record.parts("tar")
            if part["key"] == row["part"]
            for document in self.documents(part)
            if document["image"]["image_id"] == row["image_id"]
        )
        (annotation,) = (each for each in document["annotations"] if each["id"] == row["mask_id"])
        pixels = digest(coco.decode(annotation["segmentation"]))
        return (
            *(row["image_id"], pixels, row["annotator_id"], row["round_id"], row["stage"]),
            row["model_id"] or "",
        )

    def documents(self, part: dict[str, Any]) -> list[dict[str, Any]]:
        """The annotation files of a part, one an image."""
        return [json.loads(data) for _, _, data in self.members(part)]

    def plan_findings(self) -> list[Finding]:
        """A round has the records of the plans that it names: its own, and those of withdrawals."""
        made: dict[str, set[str]] = {}
        states = {row["round_id"]: row["state"] for row in self.tables.rounds}
        for record in self.records.values():
            if record.kind in ("masks", "amendments") and self.round_of(record):
                made.setdefault(self.round_of(record), set()).add(record.fields["made_by"])
        named = {
            row["round_id"]: {
                row["plan_id"],
                *(each["plan_id"] for each in document(row["settings"]).get("withdrawals", [])),
            }
            - {"", None}
            for row in self.tables.rounds
        }
        return [
            Finding(kind=FOREIGN, thing="plan", what=f"{round_id} has records of {plans}, names {named.get(round_id)}")
            for round_id, plans in made.items()
            if not plans <= named[round_id] or (plans != named[round_id] and states[round_id] == "closed")
        ]

    def withdrawal_findings(
        self, withdrawn: set[Any], replaced: set[tuple[int, int]], superseded: set[Mask]
    ) -> list[Finding]:
        """No mask was withdrawn but those that a round replaced, or that were taken back from their annotator."""
        taken: set[tuple[int, int]] = set()
        out = {(mask[0], mask[1], mask[3]) for mask in superseded}
        for record in self.records.values():
            if record.kind in ("masks", "amendments") and self.round_of(record):
                taken |= self.taken_masks(record)
                taken |= {
                    (image_id, mask["id"])
                    for image_id, mask in self.stored_masks(record)
                    if (image_id, digest(coco.decode(mask["segmentation"])), self.round_of(record)) in out
                }
        extra = withdrawn - replaced - taken
        return [Finding(kind=LOST, thing="mask", what=f"withdrawn for no reason: {sorted(extra)}")] if extra else []

    def stored_masks(self, record: Record) -> list[tuple[int, dict[str, Any]]]:
        """Image id and annotation of each mask in a shard."""
        documents = [each for part in record.parts("tar") for each in self.documents(part)]
        return [(each["image"]["image_id"], mask) for each in documents for mask in each["annotations"]]

    def taken_masks(self, record: Record) -> set[tuple[int, int]]:
        """Masks in a round's shard that were taken back from their annotator."""
        stored = {(image_id, mask["id"]) for image_id, mask in self.stored_masks(record)}
        rows = [row for part in record.parts("annotations") for row in parquet_rows(self.object(part["key"]))]
        out = {(row["round_id"], name) for row in self.tables.rounds for name in withdrawn_of(row)}
        taken = (row for row in rows if (row["round_id"], row["annotator_id"]) in out)
        return stored & {(row["image_id"], row["mask_id"]) for row in taken}
