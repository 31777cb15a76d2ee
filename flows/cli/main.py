"""The `gigamask` command: progress on stderr, results on stdout.

Exit status: 0 done, 1 refused or failed with a message, 2 for options that the command line does not know, 130 and 143
stopped by Ctrl+C and SIGTERM. Commands import heavy libraries inside their functions, after they have printed a first
line and checked their arguments.
"""

import logging
import os
import resource
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli import (
    annotate,
    audit,
    dataset,
    demo,
    detector,
    doctor,
    engine,
    environment,
    evaluate,
    experiment,
    formats,
    lineage,
    loop,
    maintenance,
    models,
    release,
    retrain,
    round_close,
    rounds,
    run,
    scenes,
    serve,
    train_seed,
    training,
    users,
    verify_model,
    workspace,
)
from flows.cli.refusals import explain
from flows.cli.stopping import stopping
from flows.progress import log

COMMANDS: dict[str, list[Callable[..., None]]] = {
    "Make masks": [run.run, run.ingest, run.masks],
    "Annotate": [annotate.annotate, demo.demo, audit.audit],
    "Ask a dataset": [dataset.query, dataset.status, dataset.snapshot, dataset.verify, dataset.report],
    "Publish": [release.release],
    "Exchange with other tools": [formats.import_, formats.export],
    "Keep a dataset in order": [
        maintenance.gc,
        maintenance.redo,
        maintenance.withdraw,
        maintenance.erase,
        maintenance.rebuild,
        maintenance.upgrade,
    ],
    "Models": [evaluate.evaluate, training.train, retrain.retrain, loop.loop, lineage.lineage, train_seed.train_seed],
    "Run the engine": [engine.engine, serve.serve],
    "Prefill and review": [detector.train_detector, detector.evaluate_detector, verify_model.verify_model],
    "This machine": [doctor.doctor, scenes.scenes],
}
"""Functions of all commands by group, in the order of `gigamask --help`.

The function's name is the command's name; one that is a word of Python ends in an underscore.
"""

MODEL_COMMANDS: dict[str, Callable[..., None]] = {
    "list": models.models_list,
    "pull": models.models_pull,
    "promote": models.models_promote,
    "rollback": models.models_rollback,
    "history": models.models_history,
}
"""Functions of the commands below `gigamask models`, by the command's name."""

ROUND_COMMANDS: dict[str, Callable[..., None]] = {
    "open": rounds.round_open,
    "status": rounds.round_status,
    "extend": rounds.round_extend,
    "pause": rounds.round_pause,
    "reopen": rounds.round_reopen,
    "cancel": rounds.round_cancel,
    "simulate": rounds.round_simulate,
    "close": round_close.round_close,
    "withdraw": rounds.round_withdraw,
    "report": rounds.round_report,
}
"""Functions of the commands below `gigamask round`, by the command's name."""

USER_COMMANDS: dict[str, Callable[..., None]] = {
    "add": users.users_add,
    "list": users.users_list,
    "disable": users.users_disable,
    "pause": users.users_pause,
    "password": users.users_password,
}
"""Functions of the commands below `gigamask users`, by the command's name."""

WORKSPACE_COMMANDS: dict[str, Callable[..., None]] = {
    "backup": workspace.workspace_backup,
    "restore": workspace.workspace_restore,
}
"""Functions of the commands below `gigamask workspace`, by the command's name."""

EXPERIMENT_COMMANDS: dict[str, Callable[..., None]] = {
    "points": experiment.experiment_points,
    "boxes": experiment.experiment_boxes,
    "edges": experiment.experiment_edges,
    "proposals": experiment.experiment_proposals,
}
"""Functions of the commands below `gigamask experiment`, by the command's name."""

GROUPS = (
    ("round", "Annotate", "Ask annotators about images, and take their masks home.", ROUND_COMMANDS),
    ("users", "Annotate", "Accounts of a team.", USER_COMMANDS),
    ("workspace", "Annotate", "Back up and restore the annotation state.", WORKSPACE_COMMANDS),
    ("models", "Models", "Names, released weights, and the promoted model of a dataset.", MODEL_COMMANDS),
    ("experiment", "Models", 'The experiments of "Segment Anything", beside its figures.', EXPERIMENT_COMMANDS),
)
"""Commands that have commands below them: name, group of the help, help, and those commands."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version("gigamask"))
        raise typer.Exit


def gigamask(
    version_wanted: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """An open data engine: photos in, a dataset of segmentation masks out."""


class _Commands(TyperGroup):
    """All commands; an option's error says what was got and what is expected."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = explain(error)
            raise


def make_app() -> typer.Typer:
    """Build the command line with every command in COMMANDS and GROUPS."""
    app = typer.Typer(
        name="gigamask",
        cls=_Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(gigamask)
    for group, commands in COMMANDS.items():
        for command in commands:
            name = command.__name__.rstrip("_").replace("_", "-")
            app.command(name, rich_help_panel=group)(command)
    for group_name, panel, about, below in GROUPS:
        group_app = typer.Typer(no_args_is_help=True, help=about)
        for name, command in below.items():
            group_app.command(name)(command)
        app.add_typer(group_app, name=group_name, rich_help_panel=panel)
    return app


app = make_app()


def main() -> None:
    """Run the command; print an error as a message, with a hint at its traceback where the error is unexpected."""
    environment.prepare()
    _show_warnings()
    try:
        with stopping("stopped; run the same command again to continue"):
            app()
    except Exception as error:
        if os.environ.get("GIGAMASK_DEBUG"):
            raise
        from httpx import TransportError

        from storage.errors import StoreError

        if isinstance(error, TransportError):  # Prefect's client alone lets one out
            log(f"error: Prefect's server does not answer ({error}); run the same command again")
            sys.exit(1)
        if isinstance(error, MemoryError):
            log(f"error: {_explain_memory(error)}")
            sys.exit(1)
        kind = "" if isinstance(error, (ValueError, OSError, StoreError)) else f"{type(error).__name__}: "
        log(f"error: {kind}{error}")
        if kind:
            log("this error is unexpected; GIGAMASK_DEBUG=1 shows its traceback")
        sys.exit(1)


def _explain_memory(error: MemoryError) -> str:
    """Say that memory ran out, and which limit this process has."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    given = "" if limit == resource.RLIM_INFINITY else f"; `ulimit -v` allows {limit / 2**30:.1f} GiB"
    detail = f" ({error})" if str(error) else ""
    return f"out of memory{detail}{given}; end other programs, raise the limit, or give smaller batches or images"


def _show_warnings() -> None:
    """Let warnings and tracebacks of this project's packages reach stderr, where Prefect's own are kept away."""
    to_stderr = logging.StreamHandler()
    to_stderr.setLevel(logging.WARNING)
    for package in ("engine", "stages", "storage"):
        logging.getLogger(package).addHandler(to_stderr)


if __name__ == "__main__":
    main()
