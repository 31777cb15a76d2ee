"""`gigamask loop`: the whole engine with simulated annotators, over the real server and the real flows.

photographs -> pool | gate | evaluation
each round: ask -> annotate -> close -> retrain -> gate, and a control of equal training without the new masks
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.evaluation.clicked import evaluate
from engine.evaluation.config import EvaluationConfig
from engine.interactive.zoom import make_segmenter
from engine.labelled import LabelledImage, load_folder
from engine.model.weights import load_model
from flows.assisted_manual import assisted_manual, close_round
from flows.config.load import to_tree
from flows.loop.config import LoopSettings
from flows.loop.crew import enrol_crew, let_work, serving
from flows.loop.figures import Arm, WorkedMask, summarise
from flows.loop.kept import measure_once
from flows.loop.split import Parts, PhotoSet, divide_into_rounds, make_photo_set, split_photos
from flows.loop.table import Show
from flows.progress import log
from flows.retraining import RetrainRequest, look, retraining
from stages.promoted import FIRST_PROMOTED, PROMOTED
from stages.rounds.open import RoundRequest
from stages.training.gate import start_chain
from stages.training.job import DataConfig
from stages.training.retrain import NewRounds, train_on_rounds
from storage.dataset import Dataset
from storage.objects.atomic import replace_file
from storage.tables.sql import one_of
from storage.workspace.records import RoundState
from storage.workspace.workspace import Workspace

TRAINED = ("new masks", "control")
"""Names of the arms of a round, in the order in which they are measured."""
RESULT_NAME = "loop.json"
"""Name of the file in the work folder with the figures so far, written anew with each model that was measured."""


@dataclass(frozen=True, kw_only=True)
class LoopRequest:
    """Request to run the whole engine."""

    data: Path
    """Folder of photographs with ground truth."""
    rounds: int
    seeds: int
    """Number of times that the loop runs, each with other parts and other annotators."""
    steps: int | None
    """Training steps a round; None for 60 to 300, by the number of new masks."""
    model: str = FIRST_PROMOTED
    """Model that the loop begins with: a name or the path of a weights file."""
    work_folder: Path
    settings: LoopSettings


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What one seed works with."""

    seed: int
    parts: Parts
    pool: PhotoSet
    measured: PhotoSet
    """Evaluation photographs, for annotators who measure models; nothing of it trains."""
    held_out_every: int
    folder: Path
    workspaces: str

    def workspace(self, name: str) -> str:
        if self.workspaces:
            return self.workspaces.replace("{name}", f"seed_{self.seed}_{name}")
        return str(self.folder / f"{name}.sqlite")


def run_loop(request: LoopRequest, show: Show) -> dict[str, Any]:
    """Run the engine for each seed, show each model that was measured, and return what `gigamask loop --json` prints.

    Raises:
        ValueError: The folder has too few photographs for the rounds.
    """
    images = load_folder(request.data)
    arms: list[Arm] = []
    for seed in range(request.seeds):
        for arm in _run_seed(request, images, seed):
            arms.append(arm)
            result = summarise(arms)
            _write_result(request.work_folder / RESULT_NAME, result)
            show(arm.to_json(), result)
    return summarise(arms)


def _run_seed(request: LoopRequest, images: Sequence[LabelledImage], seed: int) -> Iterator[Arm]:
    # Photographs, and which of them each round asks about
    folder = request.work_folder / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = split_photos(images, seed, request.settings)
    pool = make_photo_set(parts.pool, folder / "pool")
    rounds, every = divide_into_rounds(pool.image_ids, request.rounds, seed)
    measured = make_photo_set(parts.evaluation, folder / "measured")
    place = _Place(
        seed=seed,
        parts=parts,
        pool=pool,
        measured=measured,
        held_out_every=every,
        folder=folder,
        workspaces=request.settings.workspaces,
    )
    _write_gate_set(parts.gate, folder / "gate")
    started = start_chain(pool.dataset, folder / "training", request.model)

    # Rounds
    yield _measure(request, place, 0, "start", started.model_id, "")
    for number, image_ids in enumerate(rounds, start=1):
        log(f"seed {seed}, round {number}: {len(image_ids)} images")
        _annotate(place, pool, "pool", f"round {number}", image_ids, PROMOTED, request.settings)
        models = _train_both(request, place, number)
        for arm, (model_id, decision) in models.items():
            yield _measure(request, place, number, arm, model_id, decision)


def _annotate(
    place: _Place, photos: PhotoSet, kind: str, name: str, image_ids: Sequence[int], model: str, settings: LoopSettings
) -> str:
    """Open a round, let simulated annotators do it, close it and return its id; a round that is there goes on."""
    workspace, dataset = place.workspace(kind), photos.dataset.uri
    with Workspace.open(workspace) as opened:
        names = enrol_crew(opened, settings.annotators)
        found = [each for each in opened.rounds.read_all() if each.name == name]
    if found and found[0].state is RoundState.CLOSED:
        return found[0].round_id
    if found:
        round_id = found[0].round_id
    else:
        listed = ", ".join(map(str, image_ids))
        query = f"SELECT image_id FROM images WHERE image_id IN ({listed}) ORDER BY image_id"
        kept = model if model == PROMOTED else load_model(model).model_id
        round_request = RoundRequest(stage="assisted_manual", query=query, name=name, model=kept)
        round_id = assisted_manual(dataset, workspace, round_request).round_id
    with serving(photos, workspace, [model], place.folder) as served:
        let_work(served, names, photos, settings, [place.seed, 2, zlib.crc32(name.encode())], place.folder)
    close_round(dataset, workspace, round_id, discard_unfinished=True)  # of simulated annotators who were stopped
    return round_id


def _train_both(request: LoopRequest, place: _Place, number: int) -> dict[str, tuple[str, str]]:
    """Train with the new masks and let the gate decide; train a control as long without them.

    What came of it is recorded, since the flow, run again, would look at what later rounds have closed.

    Returns:
        Model id and the gate's decision, by the name of the arm.
    """
    dataset, done = place.pool.dataset, f"loop:trained-{number}"
    found: Any = dataset.handovers.find(done)
    if found is not None:
        return {arm: (found.result[arm][0], found.result[arm][1]) for arm in TRAINED}

    # What the round has to train on
    settings = replace(
        request.settings.retrain,
        retrain=replace(request.settings.retrain.retrain, held_out_every=place.held_out_every),
    )
    retrain = RetrainRequest(
        dataset=place.pool.dataset.uri,
        data=str(place.folder / "gate"),
        made_by="loop",
        work_folder=str(place.folder / "training"),
        steps=request.steps,
        settings=settings,
    )
    folder = Path(retrain.work_folder)
    new = _work_of_round(dataset, retrain, number)

    def train(data: DataConfig) -> str:
        return train_on_rounds(dataset, new, folder, data, settings.train, steps=request.steps, log=log)

    # The control, and the flow of retraining
    log(f"control: as long as the training with {len(new.rounds)} new rounds, without their masks")
    control = train(replace(settings.retrain, replay_fraction=1.0))
    retraining(retrain)
    model_id = train(settings.retrain)  # which the flow has done
    judged = [each for each in dataset.promotions.history() if each.model_id == model_id]
    trained = {"new masks": (model_id, str(judged[-1].decision)), "control": (control, "")}
    dataset.handovers.record(done, trained)
    return trained


def _work_of_round(dataset: Dataset, retrain: RetrainRequest, number: int) -> NewRounds:
    """Find what a round has to train on, the same after a kill, when its model may be promoted already."""
    key = _key_of_work(number)
    found = dataset.handovers.find(key) or dataset.handovers.record(key, asdict(look(retrain)))
    known: Any = found.result
    return NewRounds(
        snapshot=known["snapshot"],
        promoted=known["promoted"],
        rounds=tuple(known["rounds"]),
        known_rounds=tuple(known["known_rounds"]),
        held_out_every=known["held_out_every"],
    )


def _key_of_work(number: int) -> str:
    return f"loop:round-{number}"


def _measure(request: LoopRequest, place: _Place, number: int, arm: str, model_id: str, decision: str) -> Arm:
    """Measure a model, once."""
    settings = {**to_tree(request.settings), "workspaces": ""}
    measured_with = [place.seed, number, arm, model_id, decision, settings]
    return measure_once(
        place.folder / "measured-models",
        measured_with,
        lambda: _measure_now(request, place, number, arm, model_id, decision),
    )


def _measure_now(request: LoopRequest, place: _Place, number: int, arm: str, model_id: str, decision: str) -> Arm:
    """Measure a model on the evaluation photographs: clicks with ground truth, and simulated annotators at work."""
    settings = request.settings
    weights = place.pool.dataset.models.fetch(model_id, place.folder / "models")
    config = EvaluationConfig(
        clicks=(1, 3), noc=settings.noc, max_masks_per_image=settings.max_masks_per_image, seed=place.seed
    )
    evaluated = evaluate(make_segmenter(load_model(weights)), place.parts.evaluation, config)
    some = place.measured.image_ids[: settings.measured_images]
    name = f"round {number}, {arm}"
    round_id = _annotate(place, place.measured, "measured", name, some, str(weights), settings)
    return Arm(
        round=number,
        arm=arm,
        seed=place.seed,
        model_id=model_id,
        masks=_count_masks(place.pool, number) if number else 0,
        decision=decision,
        clicked=evaluated.scores,
        worked=_worked_masks(place.measured, round_id),
    )


def _worked_masks(photos: PhotoSet, round_id: str) -> tuple[WorkedMask, ...]:
    sql = (
        "SELECT image_id, active_s + search_s AS seconds, clicks FROM annotations WHERE in_masks AND simulated AND "
        f"round_id IN {one_of([round_id])} ORDER BY image_id, mask_id"
    )
    rows = photos.dataset.query(sql).to_pylist()
    return tuple(WorkedMask(image=str(row["image_id"]), seconds=row["seconds"], clicks=row["clicks"]) for row in rows)


def _count_masks(pool: PhotoSet, number: int) -> int:
    """Count the masks that a round could train on, whatever later rounds have added by now."""
    found: Any = pool.dataset.handovers.find(_key_of_work(number))
    sql = "SELECT count(*) AS masks FROM annotations WHERE in_masks"
    (row,) = pool.dataset.query(sql, found.result["snapshot"]).to_pylist()
    return int(row["masks"])


def _write_gate_set(images: Sequence[LabelledImage], folder: Path) -> None:
    """Copy the gate's photographs and labels into one folder, which is its frozen evaluation set."""
    for image in images:
        target = folder / image.domain
        target.mkdir(parents=True, exist_ok=True)
        source = Path(image.origin)
        for path in (source, source.with_suffix(".json")):
            (target / path.name).write_bytes(path.read_bytes())


def _write_result(path: Path, result: Mapping[str, Any]) -> None:
    replace_file(path, lambda file: file.write(json.dumps(result, indent=1).encode()))
