"""The promotion gate of a dataset: measure a candidate beside the promoted model, judge, and record what was decided.

candidate -> version -> frozen set -> measure both -> judge -> generation

Every step may be run again: a version, the chain's start and a decision are written once, so that a gate that was
killed goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.evaluation.clicked import Evaluation, evaluate
from engine.evaluation.config import GateSettings
from engine.evaluation.gate import Measurement, describe, judge, measure_costs
from engine.evaluation.scores import summary_json
from engine.interactive.zoom import make_segmenter
from engine.labelled import LabelledImage
from engine.model.weights import Model, load_model, save_model
from engine.scenes.labelled_scenes import labelled_scenes
from stages.promoted import FIRST_PROMOTED
from storage.dataset import Dataset
from storage.errors import Conflict
from storage.model_versions import CARD_NAME, WEIGHTS_NAME
from storage.protocol.promotions import Decided, Decision, Generation, moved_by

SCENES_SEED = 40_000_000
"""Seed of the scenes of the gate; no training draws scenes of this seed."""
SCENE_SIDE_PX = 256
"""Side of these scenes, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Candidacy:
    """Request to promote a model."""

    candidate: str
    """Model to promote: the id of a version, a name, or the path of a weights file."""
    images: Sequence[LabelledImage]
    """The frozen evaluation set."""
    place: str
    """Where the set is from, for people."""
    known: Sequence[LabelledImage] = ()
    """Images of what was known before; empty means procedural scenes."""
    made_by: str
    reason: str = ""
    """Reason that the person gives; empty for none."""
    new_set: bool = False
    """Whether the set may be another one than at the decision before."""
    settings: GateSettings = field(default_factory=GateSettings)
    work_folder: Path


def decide(dataset: Dataset, asked: Candidacy, log: Callable[[str], None]) -> Generation:
    """Promote or refuse a candidate; return the generation that records it.

    A candidate that is promoted already, or was decided about on the same set and with the same limits, is not measured
    again.

    Raises:
        ValueError: There is no such model, the set has no masks, or it is another one than before.
        Conflict: Another model was promoted while this one was measured; that is recorded as a refusal, too.
    """
    # The candidate and the promoted model are versions of the dataset
    candidate_id = publish_version(dataset, asked.candidate, asked.work_folder)
    start = start_chain(dataset, asked.work_folder)
    chain = dataset.promotions.history()
    promoted_id = chain[-1].promoted
    if candidate_id == promoted_id:
        log(f"{candidate_id} is promoted already, by generation {moved_by(chain).number}")
        return moved_by(chain)

    # The same decision is made once
    evaluation_set = _describe_set(asked)
    _check_frozen(chain, evaluation_set, is_allowed=asked.new_set)
    key = _key(candidate_id, moved_by(chain), evaluation_set, asked)
    found = next((each for each in chain[start.number :] if each.key == key), None)
    if found is not None:
        log(f"generation {found.number} has decided that already")
        return found

    # Measure both and judge
    models = [_load(dataset, model_id, asked.work_folder) for model_id in (promoted_id, candidate_id)]
    promoted, candidate = _measure(models, asked, log)
    checks = judge(promoted, candidate, asked.settings.gate)
    evidence = {
        "evaluation_set": evaluation_set,
        "settings": json.loads(json.dumps(asdict(asked.settings))),
        "checks": [check.to_json() for check in checks],
        "promoted": _figures(promoted),
        "candidate": _figures(candidate),
        "code": f"gigamask {version('gigamask')}",
    }
    passed = all(check.passed for check in checks)
    decided = Decided(
        decision=Decision.PROMOTION if passed else Decision.REFUSAL,
        model_id=candidate_id,
        over=promoted_id,
        key=key,
        made_by=asked.made_by,
        reason="; ".join(part for part in (asked.reason, describe(checks)) if part),
        evidence=evidence,
    )
    return _record(dataset, decided)


def publish_version(dataset: Dataset, name: str, work_folder: Path) -> str:
    """Return the id of a model as a version of the dataset; a model from elsewhere becomes a version.

    Raises:
        ValueError: There is no such model.
    """
    if name in dataset.models.ids():
        return name
    try:
        model = load_model(name)
    except ValueError as error:
        versions = ", ".join(dataset.models.ids()) or "none"
        raise ValueError(f"{error}; models of {dataset.uri}: {versions}") from error
    folder = work_folder / "publish" / model.model_id
    folder.mkdir(parents=True, exist_ok=True)
    model_id = save_model(folder / WEIGHTS_NAME, model.sam, model.card)
    if model_id not in dataset.models.ids():
        dataset.models.publish(model_id, {each: folder / each for each in (WEIGHTS_NAME, CARD_NAME)})
    return model_id


def start_chain(dataset: Dataset, work_folder: Path, model: str | None = None) -> Generation:
    """Begin the chain with the model that is in use before any promotion; return its first generation.

    `model` is a name, a path or the id of a version; None means the model that ships with gigamask.
    """
    first = next(iter(dataset.promotions.history()), None)
    if first is not None:
        return first
    model_id = publish_version(dataset, model or FIRST_PROMOTED, work_folder)
    return dataset.promotions.add(
        Decided(
            decision=Decision.START,
            model_id=model_id,
            over="",
            key="start",
            made_by="gigamask",
            reason=f"{model or 'the model that ships with gigamask'} is in use until another is promoted",
        )
    )


def _record(dataset: Dataset, decided: Decided) -> Generation:
    """Add a decision to the chain.

    Raises:
        Conflict: Another model was promoted in the meantime; the lost promotion is recorded as a refusal.
    """
    try:
        return dataset.promotions.add(decided)
    except Conflict as error:
        dataset.promotions.add(replace(decided, decision=Decision.REFUSAL, reason=f"refused: {error}"))
        raise


def _measure(models: Sequence[Model], asked: Candidacy, log: Callable[[str], None]) -> list[Measurement]:
    config = asked.settings.evaluate
    known = asked.known or labelled_scenes(asked.settings.gate.known_scenes, SCENE_SIDE_PX, SCENES_SEED)
    measured: list[tuple[Evaluation, Evaluation]] = []
    for model in models:
        log(f"measuring {model.model_id} on {asked.place} and on what was known before")
        segmenter = make_segmenter(model)
        measured.append((evaluate(segmenter, asked.images, config), evaluate(segmenter, known, config)))
    costs = measure_costs(models)
    return [
        Measurement(frozen=frozen, known=before, costs=cost)
        for (frozen, before), cost in zip(measured, costs, strict=True)
    ]


def _figures(measured: Measurement) -> dict[str, Any]:
    names = measured.frozen.config.figure_names
    return {
        "model_id": measured.frozen.model_id,
        "overall": summary_json(measured.frozen.overall, names),
        "domains": {name: summary_json(each, names) for name, each in measured.frozen.domains.items()},
        "known_before": summary_json(measured.known.overall, names),
        "calibration_error": measured.frozen.calibration.expected_error if measured.frozen.calibration else None,
        "click_ms": round(1000 * measured.costs.click_s, 3),
        "parameters": measured.costs.parameters,
    }


def _describe_set(asked: Candidacy) -> dict[str, Any]:
    """Describe the frozen set and what measures it; `sha256` covers the bytes of all images and all masks."""
    digest = hashlib.sha256(json.dumps(asdict(asked.settings.evaluate), sort_keys=True).encode())
    for image in (*asked.images, *asked.known):
        digest.update(f"{image.domain}/{image.stem}".encode() + hashlib.sha256(image.read_bytes()).digest())
        for annotator, masks in image.masks_by_annotator.items():
            for mask in masks:
                digest.update(bytes([annotator % 256]) + mask.counts.tobytes())
    return {
        "sha256": digest.hexdigest(),
        "place": asked.place,
        "images": len(asked.images),
        "masks": sum(image.num_masks for image in asked.images),
        "known_images": len(asked.known),
    }


def _check_frozen(chain: Sequence[Generation], evaluation_set: dict[str, Any], *, is_allowed: bool) -> None:
    """Check that the set is that of the newest decision by measurement.

    Raises:
        ValueError: It is another one, and that is not allowed.
    """
    measured = [each for each in chain if "evaluation_set" in each.evidence]
    if not measured or is_allowed:
        return
    before: Any = measured[-1].evidence["evaluation_set"]
    if before["sha256"] != evaluation_set["sha256"]:
        raise ValueError(
            f"got the evaluation set {evaluation_set['place']} ({evaluation_set['images']} images, "
            f"{evaluation_set['sha256'][:12]}), expected the frozen one of generation {measured[-1].number}, "
            f"{before['place']} ({before['images']} images, {before['sha256'][:12]}); give that one with the same "
            "evaluate settings, or say --new-set to begin a new one"
        )


def _key(candidate_id: str, competitor: Generation, evaluation_set: dict[str, Any], asked: Candidacy) -> str:
    """Name a decision: the candidate, the generation it competes with, the set and the limits."""
    limits = hashlib.sha256(json.dumps(asdict(asked.settings.gate), sort_keys=True).encode()).hexdigest()
    return f"gate:{evaluation_set['sha256'][:16]}:{candidate_id}:after-{competitor.number}:{limits[:8]}"


def _load(dataset: Dataset, model_id: str, work_folder: Path) -> Model:
    return load_model(dataset.models.fetch(model_id, work_folder / "versions"))
