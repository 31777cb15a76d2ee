"""The command `gigamask serve`: the schedules of the engine, until it is stopped."""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.checks import check_dataset, workspace_place
from flows.cli.options import ConfigFile, WorkspacePlace
from flows.cli.stopping import stopping
from flows.progress import log
from storage.home import cache_folder

if TYPE_CHECKING:
    from flows.config.serve import ServeSettings


def serve(
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Folder or s3:// prefix of the dataset.", show_default="gigamask-dataset"),
    ] = None,
    workspace: WorkspacePlace = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", help="Folder of checkpoints and of Prefect's history.", show_default="~/.cache/gigamask"
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", help="Port of the private Prefect server; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    show: Annotated[bool, typer.Option("--show", help="Print the settings and the schedules, and end.")] = False,
    prefect_yaml: Annotated[
        Path | None,
        typer.Option("--prefect-yaml", help="Write a prefect.yaml with these schedules for a work pool, and end."),
    ] = None,
    pool: Annotated[str, typer.Option("--pool", help="Work pool that prefect.yaml names.")] = "gigamask",
    config: ConfigFile = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: retraining.after_masks=200. Repeatable."),
    ] = None,
) -> None:
    """Run the schedules of a dataset: retraining, automatic masks, the next round, verify, audits.

    Without PREFECT_API_URL a private Prefect server is started for it. Ctrl+C stops all; the same command goes on. What
    a schedule fires is decided in the workspace, so that a second `serve` does nothing twice.
    """
    from flows.config.serve import load_serve_settings

    places = {"dataset": dataset, "workspace": workspace, "work_folder": str(work) if work else None}
    settings = _complete(load_serve_settings(file=config, assignments=assignments, **places))
    if settings.retrain:
        _check_retrain_settings(settings.retrain)
    if show:
        _show(settings)
        return
    if prefect_yaml is not None:
        from flows.schedules.prefect_yaml import render_prefect_yaml

        prefect_yaml.write_text(render_prefect_yaml(settings, pool), encoding="utf-8")
        log(f"{prefect_yaml}: next: prefect work-pool create {pool} --type process; prefect deploy --all")
        return
    started = time.monotonic()
    log(f"serve: {settings.dataset}")
    check_dataset(settings.dataset)
    with stopping("stopped; the same command continues") as stop, ExitStack() as stack:
        if not os.environ.get("PREFECT_API_URL"):
            from flows.schedules.prefect_server import serving_prefect

            url = stack.enter_context(serving_prefect(Path(settings.work_folder) / "prefect", port=port))
            os.environ["PREFECT_API_URL"] = url
        from flows.schedules.deployments import list_deployments, serve_deployments

        def tell() -> None:
            page, count = os.environ["PREFECT_API_URL"].removesuffix("/api"), len(list_deployments(settings))
            print(page, flush=True)
            log(f"ready after {time.monotonic() - started:.1f} s: {count} schedules, page {page}")

        serve_deployments(settings, tell)
        stop.leave()


def _complete(settings: "ServeSettings") -> "ServeSettings":
    """Fill in the places that follow from others; paths become absolute, because flows run in other processes."""
    from dataclasses import replace

    dataset = _absolute(settings.dataset)
    work = settings.work_folder or str(cache_folder())
    space = _absolute(workspace_place(dataset, settings.workspace or None))
    return replace(settings, dataset=dataset, workspace=space, work_folder=_absolute(work))


def _absolute(place: str) -> str:
    """Make a path absolute; addresses, and variables of prefect.yaml, stay."""
    return place if "://" in place or place.startswith("{{") else str(Path(place).absolute())


def _check_retrain_settings(given: dict[str, Any]) -> None:
    """Check the settings of the training in a process of its own: their classes import torch, and that memory stays.

    Raises:
        ValueError: A setting is wrong.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        pool.submit(_build_retrain_settings, given).result()


def _build_retrain_settings(given: dict[str, Any]) -> None:
    from flows.config.load import build, to_tree
    from flows.config.retrain import RetrainSettings

    build(RetrainSettings, given, start=to_tree(RetrainSettings()))


def _show(settings: "ServeSettings") -> None:
    from flows.config.load import to_tree
    from flows.schedules.deployments import list_deployments, make_deployment

    print(json.dumps(to_tree(settings), indent=2))
    for each in list_deployments(settings):
        make_deployment(each, settings)  # which checks the cron line
        log(f"{each.name}: {f'{each.cron} {settings.timezone}' if each.cron else f'every {each.every_s:g} s'}")
