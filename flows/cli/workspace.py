"""The commands below `gigamask workspace`: backup and restore of the annotation state."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import workspace_place
from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri, WorkspacePlace


def workspace_backup(
    file: Annotated[Path, typer.Argument(help="File to write, such as backup.jsonl.gz.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    as_json: AsJson = False,
) -> None:
    """Write users, rounds, operations and all the rest to one file, while annotators go on working."""
    from flows.cli.output import print_result
    from storage.workspace.backup import back_up
    from storage.workspace.workspace import Workspace

    with Workspace.open(workspace_place(dataset, workspace)) as opened:
        print_result(back_up(opened.database, file), as_json)


def workspace_restore(
    file: Annotated[Path, typer.Argument(help="File that `backup` wrote.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    as_json: AsJson = False,
) -> None:
    """Fill an empty workspace from a backup; a backup of SQLite restores into PostgreSQL and the other way round."""
    from flows.cli.output import print_result
    from storage.workspace.backup import restore

    print_result(restore(file, workspace_place(dataset, workspace)), as_json)
