"""The command `gigamask doctor`: it checks everything that a run needs, and each finding states what to do."""

import importlib
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import AsJson

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
    dataset: Annotated[str | None, typer.Option(help="Dataset to check, too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the environment: packages, processor and GPU, models, and a dataset's store."""
    from flows.cli.output import print_rows

    findings = check_environment(dataset)
    print_rows(findings, as_json, empty="nothing checked")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def check_environment(dataset_uri: str | None) -> list[Finding]:
    """Check the packages, the device, the models, the disk and, if `dataset_uri` is given, the dataset's store.

    A failed check gives a finding, never an exception.
    """
    findings = [_packages(), *(_library(name) for name in LIBRARIES), _device(), _seed_model(), _disk()]
    if dataset_uri is not None:
        findings.append(_dataset(dataset_uri))
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
    undocumented = [name for name in PACKAGES if not importlib.import_module(name).__doc__]
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
