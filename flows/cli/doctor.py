"""The command `gigamask doctor`: it checks everything that a run needs, and each finding states what to do."""

import importlib
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import workspace_place
from flows.cli.options import AsJson, WorkspacePlace

PACKAGES = ("gigamask", "engine", "flows", "stages", "storage")
LIBRARIES = (
    "torch",
    "ray",
    "prefect",
    "pyarrow",
    "deltalake",
    "pycocotools",
    "opencv-python-headless",
    "numba",
    "fastapi",
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one check of `gigamask doctor`."""

    what: str
    """Name of what was checked."""
    good: bool
    detail: str
    """Text of the finding, with what to do if the check failed."""


def doctor(
    dataset: Annotated[str | None, typer.Option(help="Dataset to check, too, with its workspace.")] = None,
    workspace: WorkspacePlace = None,
    as_json: AsJson = False,
) -> None:
    """Check the environment: packages, processor and GPU, models, a dataset's store, and a workspace's database."""
    from flows.cli.output import print_rows

    findings = check_environment(dataset, workspace)
    print_rows(findings, as_json, empty="nothing checked")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def check_environment(dataset_uri: str | None, workspace: str | None = None) -> list[Finding]:
    """Check the packages, the device, the models and the disk; where they are given, the dataset and the workspace.

    A failed check gives a finding, never an exception.
    """
    findings = [_packages(), *(_library(name) for name in LIBRARIES), _device(), _seed_model(), _disk()]
    if dataset_uri is not None:
        findings.append(_dataset(dataset_uri))
    is_local = dataset_uri is not None and "://" not in dataset_uri
    if workspace is not None or is_local:  # a dataset on S3 has its workspace elsewhere
        findings.append(_workspace(dataset_uri, workspace))
    return findings


def _packages() -> Finding:
    """Check that all packages are gigamask's own.

    Names such as `storage` are generic, so that another distribution may have overwritten one of the packages.
    """
    try:
        files = distribution("gigamask").locate_file("")
    except PackageNotFoundError:
        return Finding(
            what="gigamask", good=False, detail="not installed; pip install gigamask into a fresh environment"
        )
    homes = {name: Path(importlib.import_module(name).__file__ or "").parent.parent for name in PACKAGES}
    is_stripped = sys.flags.optimize >= 2  # python -OO keeps no docstrings
    undocumented = [name for name in PACKAGES if not is_stripped and not importlib.import_module(name).__doc__]
    if len(set(homes.values())) != 1 or undocumented:
        strangers = undocumented or [name for name, home in homes.items() if home != homes["storage"]]
        return Finding(
            what="gigamask",
            good=False,
            detail=f"packages {', '.join(strangers)} belong to another distribution; use a fresh environment",
        )
    return Finding(
        what="gigamask", good=True, detail=f"{version('gigamask')} in {homes['engine']} (installed at {files})"
    )


def _library(name: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(what=name, good=False, detail="not installed; run make run again, or pip install gigamask")
    if name == "fastapi" and tuple(int(part) for part in found.split(".")[:2]) >= (0, 155):
        return Finding(
            what=name, good=False, detail=f"{found}: Prefect's server needs fastapi<0.155; pip install 'fastapi<0.155'"
        )
    return Finding(what=name, good=True, detail=found)


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Finding(what="device", good=True, detail=f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    return Finding(what="device", good=True, detail=f"CPU, {torch.get_num_threads()} threads; no GPU found")


def _seed_model() -> Finding:
    from engine.model.weights import load_model

    try:
        model = load_model("seed")
    except ValueError as error:
        return Finding(what="seed model", good=False, detail=str(error))
    return Finding(what="seed model", good=True, detail=model.model_id)


def _disk() -> Finding:
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding(what="disk", good=free_gib > 1, detail=f"{free_gib:.1f} GiB free here")


def _dataset(uri: str) -> Finding:
    from storage.dataset import Dataset
    from storage.errors import StoreError

    try:
        plans = len(Dataset.open(uri).status())
    except (ValueError, OSError, StoreError) as error:
        return Finding(what="dataset", good=False, detail=str(error))
    return Finding(what="dataset", good=True, detail=f"{uri}: {plans} plans")


def _workspace(dataset_uri: str | None, workspace: str | None) -> Finding:
    """Check the database of the annotation state; a file that is not there is not made."""
    from storage.errors import StoreError
    from storage.workspace.database import connect
    from storage.workspace.inspection import inspect

    try:
        place = workspace or workspace_place(dataset_uri or "", None)
        if "://" not in place and not Path(place).is_file():
            if workspace is None:
                return Finding(what="workspace", good=True, detail=f"none at {place}; `gigamask round open` makes one")
            return Finding(what="workspace", good=False, detail=f"{place}: no such file; expected an SQLite workspace")
        database = connect(place)
        try:
            return Finding(what="workspace", good=True, detail=inspect(database))
        finally:
            database.close()
    except (ValueError, OSError, StoreError) as error:
        return Finding(what="workspace", good=False, detail=str(error))
