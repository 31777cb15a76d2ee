"""Firing: a scheduled flow does its work only if it gets the key of its tick or threshold from our own workspace.

scheduled time -> key of the newest tick -> take the key -> work, with a lease -> result

Prefect may run a schedule twice after a redeploy, run many late ticks at once, or have two schedulers. All of those ask
for the same key, and one gets it.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prefect.runtime import flow_run
from prefect.server.schemas.schedules import CronSchedule

from flows.engine_state import describe_newest
from flows.progress import log
from storage.errors import StoreError
from storage.workspace.firings import LEASE_S, RETRY_S, FiringState
from storage.workspace.workspace import Workspace

MAX_LATE_TICKS = 1000
"""Largest number of ticks between a late run and now that are passed over at once."""
BEATS_PER_LEASE = 4
"""Number of times that a lease is extended before it would run out."""


@dataclass(frozen=True, kw_only=True)
class Fired:
    """Result of a scheduled flow."""

    job: str
    key: str
    """Key that was asked for; empty where nothing was due."""
    outcome: str
    """done, left (others do it or did it), or not due."""
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


def tick_key(cron: str, every_s: float, timezone: str, *, scheduled: datetime, now: datetime) -> str:
    """Name the newest tick of a schedule that is due.

    A late run is about the newest tick, too: the ticks in between are passed over. A run that begins early by the clock
    of this machine is about its own tick.

    Args:
        cron: The cron line, or empty for an interval.
        every_s: The interval in seconds, counted from 1970; it is used where there is no cron line.
        timezone: Time zone of the cron line.
        scheduled: Time for which the run was scheduled.
        now: The present time.
    """
    until = max(scheduled, now)
    if not cron:
        newest = datetime.fromtimestamp(until.timestamp() // every_s * every_s, UTC)
        return f"every {every_s:g} s:{newest:%Y-%m-%dT%H:%M:%S}Z"
    ticks = CronSchedule(cron=cron, timezone=timezone).get_dates(MAX_LATE_TICKS, start=scheduled, end=until)
    with ThreadPoolExecutor(1) as pool:  # this thread may run an event loop already
        newest = max([scheduled, *pool.submit(asyncio.run, ticks).result()]).astimezone(UTC)
    return f"cron {cron}:{newest:%Y-%m-%dT%H:%M:%S}Z"


def key_of_run(cron: str, every_s: float, timezone: str) -> str:
    """Name the newest tick for the flow run that is under way; a run that a person started has a key of its own."""
    if not _is_scheduled():
        return f"by hand:{flow_run.id}"
    return tick_key(cron, every_s, timezone, scheduled=flow_run.scheduled_start_time, now=datetime.now(UTC))


def fire(
    workspace: Workspace, job: str, key: str, work: Callable[[], Mapping[str, Any]], *, retry_s: float = RETRY_S
) -> Fired:
    """Do the work of a key, unless others do it or did it, and record its result.

    Work that raises is recorded as failed, and may be taken again after `retry_s` seconds. Work whose process ends
    otherwise may be taken again by the next scheduler.
    """
    token = workspace.firings.take(job, key, f"{socket.gethostname()}:{os.getpid()}", retry_s=retry_s)
    if token is None:
        reason, is_running = _why_left(workspace, job, key)
        if not is_running:  # who is at work on it has said so
            log(f"{job}: {key} is left, {reason}")
        return Fired(job=job, key=key, outcome="left", reason=reason)
    log(f"{job}: {key}")
    try:
        with _holding(workspace, token):
            result = work()
    except Exception as error:
        workspace.firings.end(token, {"error": f"{type(error).__name__}: {error}"}, failed=True)
        raise
    except BaseException:  # stopped: the next scheduler goes on at once
        workspace.firings.release(token)
        raise
    if not workspace.firings.end(token, result):
        log(f"{job}: {key} was taken by another process in the meantime, which records the result")
    return Fired(job=job, key=key, outcome="done", result=result)


def _is_scheduled() -> bool:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and bool(context.flow_run.auto_scheduled)


def _why_left(workspace: Workspace, job: str, key: str) -> tuple[str, bool]:
    """Say why a key was not taken, and whether that is because its job is being done."""
    found = workspace.firings.find(job, key)
    firings = [found] if found else workspace.firings.read_all(job)
    return describe_newest(firings), bool(firings) and firings[-1].state is FiringState.RUNNING


@contextmanager
def _holding(workspace: Workspace, token: str) -> Iterator[None]:
    """Extend a lease during the block, in a thread."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(LEASE_S / BEATS_PER_LEASE):
            try:
                if not workspace.firings.extend(token):
                    log("the lease of this work was taken by another process; both go on, and one result counts")
                    return
            except StoreError as error:
                log(f"the lease could not be extended, next try soon ({error})")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
