"""The data engine as one straight line: what comes next, from the state of the dataset and the workspace alone.

state -> next step -> the flow that does it

No process waits for people: each call does at most one thing, and the next call sees what became of it.
"""

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from prefect import flow

from flows.config.serve import EnginePolicy, ServeSettings
from flows.engine_state import (
    MASKS,
    RETRAINING,
    count_accepted_masks,
    count_evaluation_images,
    key_of_masks,
    retraining_counts_from,
)
from flows.jobs import SettingsOfJobs, has_unmasked_images, mask_with, open_once, retrain_with
from flows.schedules.firing import Fired, fire
from storage.dataset import Dataset
from storage.workspace.firings import RETRY_S, FiringState
from storage.workspace.records import RoundState
from storage.workspace.workspace import Workspace

PEOPLE_WAIT_S = 60.0
"""Seconds after which opening or closing a round is tried again: people wait for it."""
EVALUATION_FRACTION = 0.4
"""Largest fraction of a round's images that are held out because a model could not be judged yet."""
ENGINE = "engine"
"""Name of the job that opens and closes rounds."""


class Step(StrEnum):
    """Step of the engine."""

    INGEST = "ingest"
    """Waiting for photos: the dataset holds no image."""
    CLOSE = "close"
    """Closing a round that is complete."""
    RETRAIN = "retrain"
    WAIT = "wait"
    """Waiting for people, whose tasks are left, or for a retraining that runs."""
    ASSISTED_MANUAL = "assisted_manual"
    """Opening an assisted-manual round."""
    SEMI_AUTOMATIC = "semi_automatic"
    """Opening a semi-automatic round."""
    FULLY_AUTOMATIC = "fully_automatic"
    """Making automatic masks on the images that have none."""
    STOP = "stop"
    """Nothing is left to do until photos or a larger budget come."""


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """State of the dataset and the workspace, as far as the next step depends on it."""

    images: int
    """Number of images of the dataset."""
    unasked_images: int
    """Number of images that no round asks about."""
    unmasked_images: bool
    """Whether the fully automatic stage has images left."""
    accepted_masks: int
    """Number of masks that people made or kept in closed rounds."""
    retraining_counts_from: int
    """Number of accepted masks from which those until the next retraining are counted; 0 before the first."""
    rounds: int
    """Number of rounds, by which two calls that see the same state name the next round alike."""
    finished_rounds: tuple[str, ...]
    """Ids of the rounds to close: those whose closing was cut off, and open ones that are complete."""
    tasks_left: int
    """Number of answers of other rounds that somebody holds or can claim."""
    person_hours: float
    """Active time of people in closed rounds, in hours; simulated annotators are left out."""
    evaluation_images_missing: int = 0
    """Number of held-out images with accepted masks that are missing to judge a new model."""
    evaluation_images_to_ask: int = 0
    """Number of held-out images that rounds must still ask about, so that a new model can be judged."""
    retraining: Literal["", "running", "failed"] = ""
    """Why no retraining can begin now: one runs, or it failed and its next attempt is not due; empty if one can."""
    given_up: Mapping[str, int] = field(default_factory=dict)
    """Number of answers that nobody can give any more, by id of a finished round that wants such: everybody with an
    account skipped or answered the image."""


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """Next step of the engine, and why."""

    step: Step
    reason: str
    round_id: str = ""
    """Id of the round to close."""


def decide(state: EngineState, policy: EnginePolicy) -> NextStep:
    """Decide what comes next."""
    # People's work is taken home first, and teaches the model
    if not state.images:
        return NextStep(step=Step.INGEST, reason="the dataset holds no image; `gigamask ingest PHOTOS` adds some")
    if state.finished_rounds:
        finished = state.finished_rounds[0]
        given_up = state.given_up.get(finished, 0)
        reason = f"nobody is left to give its last {given_up} answers" if given_up else "it is complete"
        return NextStep(step=Step.CLOSE, reason=reason, round_id=finished)
    new = state.accepted_masks - state.retraining_counts_from
    is_due = new >= policy.retrain_after and not state.evaluation_images_missing
    if is_due and not state.retraining:  # while it runs or waits, people go on
        return NextStep(step=Step.RETRAIN, reason=f"{new} masks were accepted since the last retraining")
    no_model = (
        f"; no new model, as {state.evaluation_images_missing} held-out images with masks are missing to judge it"
    )
    no_model = no_model if new >= policy.retrain_after and state.evaluation_images_missing else ""
    waiting = NextStep(step=Step.WAIT, reason=f"{state.tasks_left} answers are wanted; `gigamask annotate` serves them")
    if state.tasks_left > policy.open_ahead:
        return waiting

    # The next round, until people have made enough masks, or the budget or the images end
    why_no_round = _why_no_round(state, policy)
    if not why_no_round:
        stage = Step.ASSISTED_MANUAL if state.accepted_masks < policy.semi_automatic_after else Step.SEMI_AUTOMATIC
        return NextStep(
            step=stage, reason=f"{state.accepted_masks} masks are accepted, {state.unasked_images} images left"
        )

    # The rest is automatic
    if state.tasks_left:
        return waiting
    if state.retraining == "running":
        return NextStep(step=Step.WAIT, reason="the model is being retrained; what is left is masked by the new one")
    if state.unmasked_images:
        return NextStep(step=Step.FULLY_AUTOMATIC, reason=f"no further round: {why_no_round}{no_model}")
    return NextStep(
        step=Step.STOP, reason=f"every image has automatic masks, and no further round: {why_no_round}{no_model}"
    )


@dataclass(frozen=True, kw_only=True)
class Due:
    """Firing under which the next step is done."""

    job: str
    key: str
    retry_s: float = RETRY_S
    """Seconds after which the step is tried again if it fails."""


def due_for(chosen: NextStep, state: EngineState, policy: EnginePolicy) -> Due | None:
    """Name the firing of a step; None for a step that only waits."""
    if chosen.step in (Step.INGEST, Step.WAIT, Step.STOP):
        return None
    if chosen.step is Step.RETRAIN:
        return Due(job=RETRAINING, key=key_of_masks(state.retraining_counts_from + policy.retrain_after))
    if chosen.step is Step.FULLY_AUTOMATIC:
        return Due(job=MASKS, key=f"engine:{state.images} images")
    return Due(job=ENGINE, key=f"{chosen.step}:{_name(chosen, state)}", retry_s=PEOPLE_WAIT_S)


@flow(name="data-engine")
def data_engine(settings: SettingsOfJobs, key: str = "") -> Fired:
    """Do the next thing, once, whoever asks for it.

    Raises:
        ValueError: The step failed; the message says why.
        StoreError: The dataset or the workspace cannot be read or written.
    """
    dataset = Dataset.open(settings.dataset)
    with Workspace.open(settings.workspace) as workspace:
        state = read_state(dataset, workspace, settings)
        chosen = decide(state, settings.engine)
        due = due_for(chosen, state, settings.engine)
        if due is None:
            return Fired(job=ENGINE, key="", outcome="not due", reason=f"{chosen.step}: {chosen.reason}")

        def work() -> Mapping[str, Any]:
            if chosen.step is Step.RETRAIN:
                return retrain_with(settings)
            if chosen.step is Step.FULLY_AUTOMATIC:
                return mask_with(settings)
            return _change_rounds(workspace, settings, state, chosen)

        return fire(workspace, due.job, due.key, work, retry_s=due.retry_s)


def find_due(workspace: Workspace, settings: ServeSettings) -> Due | None:
    """Find what a call of the flow would begin now; None where it would find nothing to do.

    Raises:
        StoreError: The dataset or the workspace cannot be read.
    """
    state = read_state(Dataset.open(settings.dataset), workspace, settings)
    due = due_for(decide(state, settings.engine), state, settings.engine)
    return due if due and workspace.firings.can_take(due.job, due.key, retry_s=due.retry_s) else None


def read_state(dataset: Dataset, workspace: Workspace, settings: ServeSettings) -> EngineState:
    """Read the state that `decide` needs."""
    dataset.fold()
    images, asked_about = _count_images(dataset), workspace.rounds.asked_about()
    held_out_every, wanted = settings.held_out_every, settings.evaluation_images
    sql = "SELECT coalesce(sum(active_s + search_s), 0) AS seconds FROM annotations WHERE NOT simulated"
    (row,) = dataset.query(sql).to_pylist()
    every, reviewed = workspace.rounds.read_all(), settings.engine.wait_for_review
    unfinished = (RoundState.OPEN, RoundState.PAUSED)
    rounds = [each for each in every if each.state in unfinished and "audit" not in each.settings]
    progress = [workspace.rounds.progress(each.round_id) for each in rounds]
    closing = [each.round_id for each in every if each.state is RoundState.CLOSING]
    complete = [
        each.round_id
        for each in rounds
        if each.state is RoundState.OPEN and _is_complete(workspace, each.round_id, reviewed=reviewed)
    ]
    return EngineState(
        images=images,
        unasked_images=images - _count_images_among(dataset, asked_about),
        unmasked_images=has_unmasked_images(dataset),
        accepted_masks=count_accepted_masks(dataset),
        retraining_counts_from=retraining_counts_from(workspace),
        rounds=len(every),
        finished_rounds=(*closing, *complete),
        tasks_left=sum(each.leased + each.claimable for each in progress),
        person_hours=row["seconds"] / 3600,
        evaluation_images_missing=max(0, wanted - count_evaluation_images(dataset, held_out_every)),
        evaluation_images_to_ask=max(0, wanted - sum(each % held_out_every == 0 for each in asked_about)),
        retraining=_why_no_retraining(workspace),
        given_up={each.round_id: each.free for each in progress if each.round_id in complete and each.free},
    )


def _count_images(dataset: Dataset) -> int:
    (row,) = dataset.query("SELECT count(*) AS images FROM images").to_pylist()
    return int(row["images"])


def _count_images_among(dataset: Dataset, image_ids: AbstractSet[int]) -> int:
    """Count the images of a set that the dataset still has; SQL takes no list as long as rounds make it in time."""
    if not image_ids:
        return 0
    there = dataset.query("SELECT image_id FROM images")["image_id"].to_numpy()
    return int(np.isin(there, np.fromiter(image_ids, np.int64, len(image_ids))).sum())


def _why_no_retraining(workspace: Workspace) -> Literal["", "running", "failed"]:
    """Tell whether a retraining runs, or failed and is not tried again yet."""
    fired = workspace.firings.read_all(RETRAINING)
    if not fired:
        return ""
    newest = fired[-1]
    if newest in workspace.firings.given_up(RETRAINING):
        return ""  # it is behind us: the next is due after as many masks again
    if newest.state is FiringState.RUNNING:
        return "" if newest in workspace.firings.lost() else "running"
    if newest.state is not FiringState.FAILED or newest.ended_at is None:
        return ""
    return "" if datetime.now(UTC) - newest.ended_at > timedelta(seconds=RETRY_S) else "failed"


def _is_complete(workspace: Workspace, round_id: str, *, reviewed: bool) -> bool:
    """Tell whether nobody is at work on a round any more, or wanted to be.

    No task is held or can be claimed, nobody makes a fix, no late work waits to be merged, and, if that is asked for,
    no submission waits for a reviewer.
    """
    progress, unfinished = workspace.rounds.progress(round_id), workspace.rounds.unfinished(round_id)
    if progress.leased + progress.claimable or progress.open_branches or unfinished.loses_work:
        return False
    return not (reviewed and workspace.submissions.read_waiting(round_id=round_id))


def _why_no_round(state: EngineState, policy: EnginePolicy) -> str:
    """Say why no further round is to be opened; empty where one is."""
    if state.accepted_masks >= policy.fully_automatic_after:
        return f"{state.accepted_masks} masks are accepted, {policy.fully_automatic_after} were wanted"
    if policy.max_person_hours and state.person_hours >= policy.max_person_hours:
        return f"people worked {state.person_hours:.1f} h, the budget was {policy.max_person_hours:g} h"
    return "" if state.unasked_images else "every image was asked about"


def _name(chosen: NextStep, state: EngineState) -> str:
    """Name the round of a step: by its id, or by the number of rounds that there were before it."""
    return chosen.round_id or f"after {state.rounds} rounds"


def _change_rounds(
    workspace: Workspace, settings: ServeSettings, state: EngineState, chosen: NextStep
) -> Mapping[str, Any]:
    """Close a round, or open one; a second attempt finds it."""
    from flows.assisted_manual import close_round
    from stages.rounds.open import RoundRequest

    if chosen.step is Step.CLOSE:
        closed = close_round(settings.dataset, settings.workspace, chosen.round_id, discard_unfinished=False)
        return asdict(closed)
    images, name = settings.engine.images_per_round, _name(chosen, state)
    request = RoundRequest(
        stage=str(chosen.step),
        images=images,
        choose_by=settings.engine.choose_by,
        held_out_images=min(state.evaluation_images_to_ask, math.ceil(EVALUATION_FRACTION * images)),
        held_out_every=settings.held_out_every,
        prefill=settings.prefill.prefill,
        name=name,
        guidelines=settings.engine.guidelines,
    )
    return open_once(workspace, settings, request, f"{chosen.step}:{name}")
