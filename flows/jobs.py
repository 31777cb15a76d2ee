"""The Prefect flows that schedules start: each asks our own state whether it is due, then calls the flow that does it.

is it due? -> key -> flows/schedules/firing.py -> the flow of the engine

Heavy libraries are imported by the work itself, so that the scheduler, which imports this file, stays small.

Users' deployments and prefect.yaml files hold the paths of these functions and of `data_engine`; they stay as they are.
"""

import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from prefect import flow
from pydantic import BeforeValidator

from flows.config.load import to_tree, validated
from flows.config.serve import ServeSettings, parse_serve_settings
from flows.engine_state import (
    AUDIT,
    MASKS,
    PREFILL,
    RETRAINING,
    VERIFY,
    count_accepted_masks,
    count_free,
    find_due_masks,
)
from flows.progress import log
from flows.schedules.firing import Fired, fire, key_of_run
from storage.dataset import Dataset
from storage.errors import InvalidInput
from storage.workspace.workspace import Workspace

if TYPE_CHECKING:
    from stages.rounds.open import RoundRequest

MADE_BY = "gigamask serve"
"""Who retrains and promotes, for the record."""
SettingsOfJobs = Annotated[ServeSettings, BeforeValidator(parse_serve_settings)]
"""Type of the flows' settings: ServeSettings, or their plain values from Prefect's server."""


@flow(name="scheduled-retraining")
def retrain(settings: SettingsOfJobs, cron: str = "", every_s: float = 0.0, key: str = "") -> Fired:
    """Retrain the promoted model because it is time.

    Raises:
        ValueError: A round has too few images to train and to hold out, or a setting is wrong.
        StoreError: The dataset or the workspace cannot be read or written.
    """
    key = key or key_of_run(cron, every_s, settings.timezone)
    with Workspace.open(settings.workspace) as workspace:
        return fire(workspace, RETRAINING, key, lambda: retrain_with(settings))


@flow(name="retraining-after-masks")
def retrain_after_masks(settings: SettingsOfJobs, key: str = "") -> Fired:
    """Retrain the promoted model if enough new masks were accepted since the last retraining.

    Raises:
        ValueError: A round has too few images to train and to hold out, or a setting is wrong.
        StoreError: The dataset or the workspace cannot be read or written.
    """
    with Workspace.open(settings.workspace) as workspace:
        due = key or find_due_masks(Dataset.open(settings.dataset), workspace, settings.retraining.after_masks)
        if not due:
            return Fired(job=RETRAINING, key="", outcome="not due", reason="too few new accepted masks")
        return fire(workspace, RETRAINING, due, lambda: retrain_with(settings))


@flow(name="scheduled-masks")
def mask_new_images(settings: SettingsOfJobs, cron: str = "", every_s: float = 0.0, key: str = "") -> Fired:
    """Make automatic masks on images that no model has masked yet.

    Raises:
        ValueError: There is no such model, or shards failed.
        StoreError: The dataset or the workspace cannot be read or written.
    """
    key = key or key_of_run(cron, every_s, settings.timezone)
    if not has_unmasked_images(Dataset.open(settings.dataset)):
        return Fired(job=MASKS, key="", outcome="not due", reason="every image has automatic masks")
    with Workspace.open(settings.workspace) as workspace:
        return fire(workspace, MASKS, key, lambda: mask_with(settings))


@flow(name="scheduled-round")
def open_next_round(settings: SettingsOfJobs, cron: str = "", every_s: float = 0.0, key: str = "") -> Fired:
    """Open the next semi-automatic round where few tasks are left; its images begin with masks.

    Raises:
        ValueError: A setting is wrong.
        StoreError: The dataset or the workspace cannot be read or written.
    """
    key = key or key_of_run(cron, every_s, settings.timezone)
    with Workspace.open(settings.workspace) as workspace:
        free = count_free(workspace)
        if free >= settings.prefill.min_free:
            return Fired(job=PREFILL, key="", outcome="not due", reason=f"{free} tasks are free")
        return fire(workspace, PREFILL, key, lambda: _open_round(workspace, settings, key))


@flow(name="scheduled-verify")
def verify(settings: SettingsOfJobs, cron: str = "", every_s: float = 0.0, key: str = "") -> Fired:
    """Check every byte and count of the dataset.

    Raises:
        ValueError: There are faults.
        StoreError: The dataset or the workspace cannot be read or written.
    """
    key = key or key_of_run(cron, every_s, settings.timezone)
    with Workspace.open(settings.workspace) as workspace:
        return fire(workspace, VERIFY, key, lambda: _verify(settings))


@flow(name="scheduled-audit")
def draw_audit(settings: SettingsOfJobs, cron: str = "", every_s: float = 0.0, key: str = "") -> Fired:
    """Draw a random sample of masks for people to improve.

    Raises:
        ValueError: No image has such masks, or a setting is wrong.
        StoreError: The dataset or the workspace cannot be read or written.
    """
    key = key or key_of_run(cron, every_s, settings.timezone)
    with Workspace.open(settings.workspace) as workspace:
        return fire(workspace, AUDIT, key, lambda: _draw_audit(workspace, settings, key))


def has_unmasked_images(dataset: Dataset) -> bool:
    """Tell whether the automatic stage has images to mask that no model masked."""
    from stages.fully_automatic.plan import count_unmasked_images

    return count_unmasked_images(dataset) > 0


def retrain_with(settings: ServeSettings) -> Mapping[str, Any]:
    """Retrain the promoted model; the result says how many masks were accepted when it began."""
    from flows.config.retrain import RetrainSettings
    from flows.retraining import RetrainRequest, retraining

    dataset = Dataset.open(settings.dataset)
    dataset.fold()
    accepted = count_accepted_masks(dataset)
    request = RetrainRequest(
        dataset=settings.dataset,
        data=settings.retraining.data,
        made_by=MADE_BY,
        work_folder=str(Path(settings.work_folder) / "retraining"),
        steps=settings.retraining.steps,
        settings=validated(RetrainSettings, to_tree(RetrainSettings()) | settings.retrain),
    )
    done = retraining(request)
    log(f"retraining: {done.decision}, {done.reason}")
    return {"accepted_masks": accepted, **asdict(done)}


def mask_with(settings: ServeSettings) -> Mapping[str, Any]:
    """Make automatic masks on the images that no model masked."""
    from flows.config.run import load_run_config
    from flows.fully_automatic import mask_dataset
    from stages.promoted import find_by_address

    model = find_by_address(settings.dataset, settings.masks.model)
    config = load_run_config(dataset=settings.dataset, model=model, preset=settings.masks.preset)
    return asdict(mask_dataset(config, only_unmasked=True))


def open_once(workspace: Workspace, settings: ServeSettings, request: "RoundRequest", key: str) -> Mapping[str, Any]:
    """Open a round for a key, unless an attempt that was killed has opened it, with these settings or earlier ones."""
    from flows.assisted_manual import assisted_manual
    from flows.semi_automatic import semi_automatic
    from stages.rounds.requests import request_to_open
    from storage.workspace.requests import RequestReused

    request_id = str(uuid5(NAMESPACE_URL, f"gigamask:round:{key}"))
    try:
        found = workspace.rounds.opened_by(request_to_open(request, request_id))
        there = found.round_id if found else ""
    except RequestReused as other:
        there = other.round_id
    if there:
        return {"round_id": there, "reason": "it was open already"}
    flow = semi_automatic if request.stage == "semi_automatic" else assisted_manual
    return asdict(flow(settings.dataset, settings.workspace, request, request_id))


def _open_round(workspace: Workspace, settings: ServeSettings, key: str) -> Mapping[str, Any]:
    """Open the round of a tick."""
    from stages.rounds.open import RoundRequest

    wanted, name = settings.prefill, f"scheduled, {key}"
    request = RoundRequest(stage="semi_automatic", images=wanted.images, prefill=wanted.prefill, name=name)
    try:
        return open_once(workspace, settings, request, key)
    except InvalidInput as error:
        log(f"prefill: {error}")
        return {"round_id": "", "reason": str(error)}


def _verify(settings: ServeSettings) -> Mapping[str, Any]:
    maintenance = Dataset.open(settings.dataset).maintenance
    if settings.verify.fast:
        report = maintenance.verify(fast=True)
    else:
        with maintenance.journal() as journal:
            report = maintenance.verify(journal=journal)
    log(f"verify: {report.objects} objects, {len(report.faults)} faults")
    if report.faults:
        raise ValueError(
            f"{len(report.faults)} faults, the first: {report.faults[0]}; `gigamask verify` lists them all"
        )
    return {"objects": report.objects, "nbytes": report.nbytes, "faults": 0}


def _draw_audit(workspace: Workspace, settings: ServeSettings, key: str) -> Mapping[str, Any]:
    from stages.rounds.audit import AuditRequest, open_audit

    seed = zlib.crc32(key.encode())  # another sample for each tick, and the same one after a kill
    wanted = AuditRequest(sample=settings.audit.sample, seed=seed, masks=settings.audit.masks)
    opened, is_new = open_audit(Dataset.open(settings.dataset), workspace, wanted, actor=MADE_BY)
    return {"round_id": opened.round_id, "is_new": is_new, "seed": seed}
