"""A cheap part of the table of environments: `query` where it differs, `doctor`, and refusals of `run` and `train`.

The whole table, in which `run` and `train` do their work, is `make environments`.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.environments.cases import ENVIRONMENTS, Environment
from tests.environments.harness import Materials, skipped, try_command
from tests.paths import ROOT

pytestmark = pytest.mark.slow

QUERIED = (
    "HOME unset",
    "HOME unwritable",
    "uid without a name, HOME unset",
    "folder with engine.py, storage/",
    "PYTHONPATH=. with engine.py, storage/",
    "locale POSIX, no UTF-8 mode",
    "output in ASCII",
    "64 open files",
    "PYTHONWARNINGS=error",
)
"""Names of environments that differ for a command that reads a dataset in a process of its own."""


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    return Materials.make(tmp_path_factory.mktemp("environments") / "materials")


def named(name: str) -> Environment:
    (found,) = [each for each in ENVIRONMENTS if each.name == name]
    if why := skipped(found):
        pytest.skip(f"{name}: {why}")
    return found


@pytest.mark.parametrize("name", QUERIED)
def test_a_query_works_or_says_why(name: str, materials: Materials, tmp_path: Path) -> None:
    outcome = try_command(named(name), "query", materials, tmp_path / "folder")
    assert outcome.good, outcome


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize("name", ["uid without a name, HOME unset", "PYTHONPATH=. with engine.py, storage/"])
def test_wrong_use_is_refused_as_anywhere_else(name: str, command: str, materials: Materials, tmp_path: Path) -> None:
    """The checks before the work have to open the dataset and find the model there."""
    place = tmp_path / "materials"
    shutil.copytree(materials.folder, place)
    (place / "tiny.safetensors").unlink()
    lacking = replace(materials, folder=place)
    refusing = replace(named(name), refused={"*": "tiny.safetensors"})
    outcome = try_command(refusing, command, lacking, tmp_path / "folder")
    assert outcome.good, outcome


def test_a_prefect_server_that_does_not_answer_is_named_before_the_work(materials: Materials, tmp_path: Path) -> None:
    outcome = try_command(named("GIGAMASK_PREFECT_URL of a dead server"), "run", materials, tmp_path / "folder")
    assert outcome.good, outcome
    assert not (tmp_path / "folder" / "out").exists()


@pytest.mark.parametrize("command", ["run", "train"])
def test_too_little_virtual_memory_is_refused_at_once(command: str, materials: Materials, tmp_path: Path) -> None:
    outcome = try_command(named("3 GiB of addresses"), command, materials, tmp_path / "folder")
    assert outcome.good, outcome


def test_the_doctor_works_for_a_user_without_a_name(materials: Materials, tmp_path: Path) -> None:
    outcome = try_command(named("uid without a name, HOME unset"), "doctor", materials, tmp_path / "folder")
    assert outcome.good, outcome


def test_the_doctor_knows_its_own_packages_without_docstrings() -> None:
    program = "from flows.cli.doctor import _packages; print(_packages().good)"
    command = [sys.executable, "-OO", "-c", program]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "True\n"


def test_every_environment_has_a_name_of_its_own() -> None:
    assert len({each.name for each in ENVIRONMENTS}) == len(ENVIRONMENTS) > 30
