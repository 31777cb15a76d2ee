"""What a user installs: one distribution with exactly our five packages, and a command that starts."""

import importlib
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

import hatch_build
from tests.paths import ROOT

PACKAGES = ["gigamask", "engine", "flows", "stages", "storage"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("gigamask-*.whl")))


def test_the_wheel_holds_our_five_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_carries_the_seed_model_the_schemas_and_the_type_markers(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for stem in ("seed", "seed-detector"):
        assert {f"engine/pretrained/{stem}.safetensors", f"engine/pretrained/{stem}.json"} <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    read_at_run_time = [
        *(ROOT / "storage" / "formats" / "schemas").glob("*.json"),
        ROOT / "flows" / "pages" / "report.css",
        *(path for path in (ROOT / "stages" / "annotator" / "web").rglob("*") if path.is_file()),
    ]
    assert {path.relative_to(ROOT).as_posix() for path in read_at_run_time} <= names


def test_the_seed_model_is_at_most_25_mb() -> None:
    assert (ROOT / "engine" / "pretrained" / "seed.safetensors").stat().st_size <= 25_000_000


def test_all_five_packages_come_from_one_folder_and_carry_our_docstring() -> None:
    modules = [importlib.import_module(name) for name in PACKAGES]
    assert len({Path(module.__file__ or "").parent.parent for module in modules}) == 1
    assert all(module.__doc__ for module in modules)


def test_the_command_is_installed_and_tells_its_commands() -> None:
    assert any(entry.name == "gigamask" for entry in distribution("gigamask").entry_points)
    shown = subprocess.run(
        [sys.executable, "-m", "flows.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Turn photos into masks" in shown.stdout


def test_the_engine_imports_with_torch_numpy_and_opencv_alone() -> None:
    """A training machine may have nothing else: every other third-party import inside engine must be lazy."""
    program = """
import importlib, pkgutil, sys
absent = set("ray prefect pydantic pyarrow deltalake boto3 pycocotools PIL skimage matplotlib webdataset typer".split())
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in absent:
            raise ModuleNotFoundError(f"{name} is not on a training machine")
sys.meta_path.insert(0, Refuse())
import engine
for module in pkgutil.walk_packages(engine.__path__, "engine."):
    if not module.name.endswith(("_numba", "_triton", "__main__")):
        importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("npm", "reason"),
    [(None, "npm was not found; install Node"), ("echo no network >&2; exit 1", "npm failed: no network")],
)
def test_without_npm_the_package_is_built_all_the_same_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm: str | None, reason: str
) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "stages" / "annotator" / "web" / name, tmp_path)
    if npm:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hatch_build.fetch_library(tmp_path) == reason
    assert not (tmp_path / "vendor").exists()
