"""The flow of retraining: what rounds added becomes a new model, which the gate promotes or keeps out.

snapshot -> train -> measure and judge -> promote or keep

Each step names its work `<kind>:<snapshot>:<model>` and first looks whether that is done, so that the same command goes
on after a kill and does nothing twice. A training that was cut off continues from its checkpoint.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from flows.config.retrain import RetrainSettings
from flows.orchestration import flow, is_in_prefect, task
from flows.progress import log
from stages.training.gate import start_chain
from stages.training.retrain import (
    JudgedModel,
    NewRounds,
    choose_evaluation_set,
    find_new_rounds,
    judge_model,
    train_on_rounds,
)
from storage.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class RetrainRequest:
    """Request to retrain the promoted model on the rounds that were closed since it was trained."""

    dataset: str
    data: str = ""
    """Folder of the frozen evaluation set; empty for the images of rounds that no training sees."""
    new_set: bool = False
    """Whether to freeze a new evaluation set, where another one was frozen before."""
    made_by: str = "retraining"
    work_folder: str
    """Folder of checkpoints, scenes and copies of models."""
    steps: int | None = None
    """Training steps; None for 60 to 300, by the number of new masks."""
    settings: RetrainSettings = field(default_factory=RetrainSettings)


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """Result of `gigamask retrain`."""

    decision: str
    """promotion, refusal, or nothing_new where no round was closed since the promoted model was trained."""
    model: str
    """Id of the new model; empty where nothing was trained."""
    promoted: str
    """Id of the model that is promoted now."""
    snapshot: str
    rounds: tuple[str, ...]
    """Ids of the rounds that are new to the model."""
    generation: int
    """Generation that records the decision; 0 where nothing was trained."""
    reason: str
    checks: tuple[str, ...]
    """What each check of the gate found."""


@flow("retraining")
def retraining(request: RetrainRequest) -> Retrained:
    """Retrain the promoted model on the masks of new rounds, and promote the result if it passes the gate.

    Raises:
        ValueError: A round has too few images to train and to hold out, or the evaluation set cannot be used.
        Conflict: Another model was promoted meanwhile; the same command measures against that one.
    """
    new = look(request)
    if not new.rounds:
        return _nothing_new(new)
    model_id = train(request, new)
    judged = judge(request, new, model_id)
    return _result(new, judged)


@task("look")
def look(request: RetrainRequest) -> NewRounds:
    """Take a snapshot, and find the rounds in it that the promoted model was not trained on.

    Raises:
        ValueError: The evaluation set has too few images, so that a training would be in vain.
    """
    # What is new
    dataset, settings = Dataset.open(request.dataset), request.settings
    start_chain(dataset, Path(request.work_folder))
    new = find_new_rounds(dataset, Path(request.work_folder), held_out_every=settings.retrain.held_out_every)

    # Whether a model that is trained on it could be judged
    if new.rounds:
        data = Path(request.data) if request.data else None
        choose_evaluation_set(dataset, new, settings.gate.gate, data=data, new_set=request.new_set)
    return new


@task("train")
def train(request: RetrainRequest, new: NewRounds) -> str:
    """Train the promoted model further on the new rounds and on replay, and return the id of the new version."""
    settings, folder = request.settings, Path(request.work_folder)
    return train_on_rounds(
        Dataset.open(request.dataset), new, folder, settings.retrain, settings.train, steps=request.steps, log=log
    )


@task("judge")
def judge(request: RetrainRequest, new: NewRounds, model_id: str) -> JudgedModel:
    """Measure the new model beside the promoted one; promote it, or record why not."""
    dataset = Dataset.open(request.dataset)
    judged = judge_model(
        dataset,
        model_id,
        new,
        request.settings.gate,
        data=Path(request.data) if request.data else None,
        new_set=request.new_set,
        made_by=request.made_by,
        work_folder=Path(request.work_folder),
        log=log,
    )
    if is_in_prefect():
        from prefect.artifacts import create_markdown_artifact

        create_markdown_artifact(key="retraining", markdown=_as_markdown(judged), description=judged.reason[:200])
    return judged


def _as_markdown(judged: JudgedModel) -> str:
    lines = [f"# {judged.decision} of {judged.model}", "", judged.reason, "", *(f"- {each}" for each in judged.checks)]
    return "\n".join(lines)


def _nothing_new(new: NewRounds) -> Retrained:
    reason = f"no round was closed since {new.promoted} was trained; close one, then run the same command again"
    return Retrained(
        decision="nothing_new",
        model="",
        promoted=new.promoted,
        snapshot=new.snapshot,
        rounds=(),
        generation=0,
        reason=reason,
        checks=(),
    )


def _result(new: NewRounds, judged: JudgedModel) -> Retrained:
    return Retrained(snapshot=new.snapshot, rounds=new.rounds, **asdict(judged))
