"""The deployments of the engine: which flow runs when, for `gigamask serve` and for prefect.yaml.

settings -> deployments -> Prefect's scheduler -> flows/jobs.py

Prefect decides when a flow is called; our workspace decides whether it does anything (flows/schedules/firing.py).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from httpx import HTTPError
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType

from flows import data_engine, engine_state, jobs
from flows.config.load import to_tree
from flows.config.serve import ServeSettings
from flows.progress import log
from storage.dataset import Dataset
from storage.errors import StoreError
from storage.workspace.records import RoundState
from storage.workspace.workspace import Workspace

ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
"""Time from which intervals are counted, so that a redeploy does not move the ticks."""
QUERY_S = 5
"""Seconds between two looks of the scheduler for due runs."""
WATCH_S = 5.0
"""Seconds between two looks for rounds that were closed and for work that was killed."""
MAX_RUNS = 4
"""Largest number of flow runs at a time."""


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """One deployment: a flow with its schedule."""

    name: str
    flow: Flow[Any, Any]
    cron: str = ""
    """Times as a cron line; empty for an interval."""
    every_s: float = 0.0
    """Interval in seconds."""
    job: str
    """Name of the job whose killed work this deployment takes up."""
    counts: bool = False
    """Whether the flow counts masks, so that its schedule is only how often it looks."""
    is_watched: bool = False
    """Whether `gigamask serve` looks itself and calls the flow only where something is due: a flow run that finds
    nothing costs seconds of CPU for its imports."""

    def parameters(self, settings: ServeSettings) -> dict[str, Any]:
        """Return the parameters of the flow."""
        schedule = {} if self.counts else {"cron": self.cron, "every_s": self.every_s}
        return {"settings": to_tree(settings), **schedule}


def list_deployments(settings: ServeSettings) -> list[Scheduled]:
    """List the deployments that the settings ask for."""
    retraining, masks, prefill = settings.retraining, settings.masks, settings.prefill
    check_every_s = retraining.check_every_s if retraining.after_masks else 0.0
    every = [
        Scheduled(name="retrain-by-cron", flow=jobs.retrain, cron=retraining.cron, job=engine_state.RETRAINING),
        Scheduled(
            name="retrain-by-interval", flow=jobs.retrain, every_s=retraining.every_s, job=engine_state.RETRAINING
        ),
        Scheduled(
            name="retrain-after-masks",
            flow=jobs.retrain_after_masks,
            every_s=check_every_s,
            job=engine_state.RETRAINING,
            counts=True,
        ),
        Scheduled(name="masks-by-cron", flow=jobs.mask_new_images, cron=masks.cron, job=engine_state.MASKS),
        Scheduled(name="masks-by-interval", flow=jobs.mask_new_images, every_s=masks.every_s, job=engine_state.MASKS),
        Scheduled(name="next-round-by-cron", flow=jobs.open_next_round, cron=prefill.cron, job=engine_state.PREFILL),
        Scheduled(
            name="next-round-by-interval", flow=jobs.open_next_round, every_s=prefill.every_s, job=engine_state.PREFILL
        ),
        Scheduled(name="verify", flow=jobs.verify, cron=settings.verify.cron, job=engine_state.VERIFY),
        Scheduled(name="audit", flow=jobs.draw_audit, cron=settings.audit.cron, job=engine_state.AUDIT),
        Scheduled(
            name="data-engine",
            flow=data_engine.data_engine,
            every_s=settings.engine.every_s,
            job=data_engine.ENGINE,
            counts=True,
            is_watched=True,
        ),
    ]
    return [each for each in every if each.cron or each.every_s]


def make_deployment(each: Scheduled, settings: ServeSettings) -> RunnerDeployment:
    """Make the deployment for Prefect.

    Raises:
        ValueError: A cron line or the time zone is wrong.
    """
    try:
        schedule = None
        if each.cron:
            schedule = Schedule(cron=each.cron, timezone=settings.timezone)
        elif not each.is_watched:
            schedule = Schedule(interval=timedelta(seconds=each.every_s), timezone="UTC", anchor_date=ANCHOR)
        return RunnerDeployment.from_flow(
            each.flow,
            each.name,
            schedule=schedule,
            parameters=each.parameters(settings),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    except ValueError as error:
        wanted = f"cron {each.cron!r} in {settings.timezone}" if each.cron else f"every {each.every_s} s"
        raise ValueError(f"{each.name}: {wanted}: {' '.join(str(error).split())}") from error


def serve_deployments(settings: ServeSettings, ready: Callable[[], None]) -> None:
    """Run the deployments in this process until it is stopped.

    Args:
        settings: The settings.
        ready: Function that is called once the schedules are registered.

    Raises:
        ValueError: A cron line or the time zone is wrong.
    """
    listed = list_deployments(settings)
    made = [make_deployment(each, settings) for each in listed]
    with suppress(KeyboardInterrupt, asyncio.CancelledError):  # how a scheduler is stopped
        asyncio.run(_serve(settings, listed, made, ready))


class _Scheduler(Runner):
    """Runner that ends on SIGTERM as it ends on Ctrl+C; Prefect's own handler never awaits its coroutine (3.8)."""

    end: Callable[[], object] = staticmethod(lambda: None)
    """Function that ends the scheduler, from a signal handler."""

    def handle_sigterm(self, *_: object) -> None:
        self.end()


async def _serve(
    settings: ServeSettings, listed: list[Scheduled], made: list[RunnerDeployment], ready: Callable[[], None]
) -> None:
    runner = _Scheduler(name="gigamask", query_seconds=QUERY_S, limit=MAX_RUNS, pause_on_shutdown=False)
    for deployment in made:
        await runner.aadd_deployment(deployment)
    ready()
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None, "this is a coroutine"
    runner.end = lambda: loop.call_soon_threadsafe(main.cancel)
    async with asyncio.TaskGroup() as group:  # a watcher that fails ends the scheduler, instead of ending in silence
        watching = [group.create_task(_watch(settings, listed))]
        watching += [group.create_task(_watch_engine(settings, each)) for each in listed if each.is_watched]
        await runner.start()
        for each in watching:
            each.cancel()


async def _watch(settings: ServeSettings, listed: list[Scheduled]) -> None:
    """Start a retraining once closing a round has brought enough masks, and take up work that was killed."""
    closed: frozenset[str] = frozenset()
    while True:
        try:
            now_closed, wanted = await asyncio.to_thread(_look, settings, listed, closed)
            for each, key, attempt in wanted:
                await _start(each, key, attempt)
            closed = now_closed
        except (StoreError, OSError, HTTPError, PrefectException) as error:
            log(f"serve: next look in {WATCH_S:g} s ({error})")
        await asyncio.sleep(WATCH_S)


def _look(
    settings: ServeSettings, listed: list[Scheduled], closed: frozenset[str]
) -> tuple[frozenset[str], list[tuple[Scheduled, str, str]]]:
    """Find what is due now: the deployment, its key, and how often its work was begun."""
    by_job = {each.job: each for each in listed}
    counting = next((each for each in listed if each.flow is jobs.retrain_after_masks), None)
    with Workspace.open(settings.workspace) as workspace:
        newest = {each.job: each.key for each in workspace.firings.read_all()}
        lost = [each for each in workspace.firings.lost() if newest[each.job] == each.key and each.job in by_job]
        wanted = [(by_job[each.job], each.key, str(each.attempts)) for each in lost]
        rounds = workspace.rounds.read_all()
        now_closed = frozenset(each.round_id for each in rounds if each.state is RoundState.CLOSED)
        if counting is not None and now_closed != closed:
            due = engine_state.find_due_masks(
                Dataset.open(settings.dataset), workspace, settings.retraining.after_masks
            )
            if due and workspace.firings.find(engine_state.RETRAINING, due) is None:
                wanted.append((counting, due, "0"))
    return now_closed, wanted


async def _watch_engine(settings: ServeSettings, engine: Scheduled) -> None:
    """Start the engine's next step at every interval at which there is one, unless a run of it waits or is under way.

    Whatever goes wrong in a look is told, and the next look is soon: the other schedules go on.
    """
    run: FlowRun | None = None
    while True:
        wait_s = engine.every_s
        try:
            if await _may_start(engine, run):
                due = await asyncio.to_thread(_find_next_step, settings)
                run = await _start(engine, due.key, str(uuid4())) if due else None
        except Exception as error:
            wait_s = min(WATCH_S, engine.every_s)
            log(f"serve: the engine's next step could not be found, next look in {wait_s:g} s ({error})")
        await asyncio.sleep(wait_s)


async def _may_start(engine: Scheduled, last: FlowRun | None) -> bool:
    """Tell whether nobody paused the deployment, and its last run has ended."""
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(f"{engine.flow.name}/{engine.name}")
        if deployment.paused:
            return False
        state = (await client.read_flow_run(last.id)).state if last else None
        return state is None or state.is_final()


def _find_next_step(settings: ServeSettings) -> data_engine.Due | None:
    with Workspace.open(settings.workspace) as workspace:
        return data_engine.find_due(workspace, settings)


async def _start(each: Scheduled, key: str, attempt: str) -> FlowRun:
    """Start a run of a deployment for a key, once for each attempt."""
    started: FlowRun = await run_deployment(  # type: ignore[misc]  # a coroutine here
        f"{each.flow.name}/{each.name}",
        parameters={"key": key},
        idempotency_key=f"{each.job}:{key}:{attempt}",
        timeout=0,
        as_subflow=False,
    )
    return started
