"""The command: what it prints where, and one clear line for whatever goes wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from storage.dataset import Dataset
from tests.paths import PHOTOS, ROOT

Gigamask = Callable[..., subprocess.CompletedProcess[str]]


def assert_one_clear_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in errors[0]


def test_the_command_starts_without_the_heavy_libraries() -> None:
    """The first line has to be on the screen within two seconds; torch, Ray and Prefect take longer than that."""
    program = (
        "import sys, flows.cli.main; print([m for m in ('torch', 'ray', 'prefect', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "labels", "--format", "x"],
        ["export", "out", "--snapshot", "any", "--format", "x"],
        ["users", "add", "ann", "--role", "x"],
        ["round", "open", "--stage", "x"],
    ],
)
def test_an_unknown_choice_is_refused_without_words_of_pydantic(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert f"Invalid value for '{arguments[-2]}': 'x' is not one of" in done.stderr


def test_wrong_use_is_refused_before_the_heavy_libraries_are_imported(tmp_path: Path) -> None:
    """A refusal takes half a second of CPU instead of two to ten."""
    Dataset.create(tmp_path / "data")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    refused = [
        ["run", str(PHOTOS), "--dataset", "foreign"],
        ["ingest", str(PHOTOS), "--dataset", "foreign"],
        ["run", "--set", "nonsense=1"],
        ["run", str(PHOTOS), "--model", "absent"],
        ["run", "no-such-folder"],
        ["run", "foreign", "--dataset", "new"],
        ["ingest", "no-such-folder"],
        ["ingest", str(PHOTOS), "--set", "ingest.privacy.plates=absent.pt"],
        ["masks", "--dataset", "nowhere"],
        ["train", "--dataset", "nowhere", "--snapshot", "any"],
        ["train", "--dataset", "data", "--snapshot", "nothing"],
        ["evaluate", "--data", "absent"],
        ["evaluate", "--data", str(PHOTOS), "--beside", "absent"],
        ["models", "pull", "vit_z"],
    ]
    program = f"""
import sys
from typer.testing import CliRunner
from flows.cli.main import app
for arguments in {refused!r}:
    result = CliRunner().invoke(app, arguments)
    print(result.exit_code, [name for name in ("torch", "ray", "prefect") if name in sys.modules])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == ["1 []"] * len(refused), done.stderr


EVERY_COMMAND = """
import json, sys
from typer.main import get_command
from typer.testing import CliRunner
from flows.cli.main import app

def walk(command, *names):
    if hasattr(command, "commands"):
        return [each for name, below in command.commands.items() for each in walk(below, *names, name)]
    return [(names, command)]

def spell(names, command):
    line = list(names)
    for each in command.params:
        if each.param_type_name == "argument":
            line += ["absent"]
        elif each.name in ("dataset", "data") or each.required:
            line += [each.opts[0], "assisted_manual" if each.name == "stage" else "absent"]
    return line

for names, command in walk(get_command(app)):
    if names in NO_INPUT:
        continue
    for line in ([*names, "--mistyped"], spell(names, command)):
        status = CliRunner().invoke(app, line).exit_code
        print(json.dumps([line, status, [name for name in ("torch", "ray", "prefect") if name in sys.modules]]))
"""


def test_every_command_refuses_mistyped_options_and_absent_input_before_heavy_libraries(tmp_path: Path) -> None:
    """Half a second of CPU each. The five have no input that could be absent; `doctor` reports it with the rest."""
    no_input = [("train-seed",), ("scenes",), ("models", "list"), ("release",), ("doctor",)]
    program = f"NO_INPUT = {no_input!r}\n{EVERY_COMMAND}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
    refused = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(refused) > 90
    assert [each for each in refused if each[1] not in (1, 2) or each[2]] == []
    assert list(tmp_path.iterdir()) == []


def test_every_command_has_help() -> None:
    from typer.main import get_command

    from flows.cli.main import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert all(command.help for command in commands.values())


def test_the_version_is_that_of_the_distribution(gigamask: Gigamask, tmp_path: Path) -> None:
    assert gigamask("--version", cwd=tmp_path).stdout.strip() == version("gigamask")


def test_a_query_answers_on_stdout_alone(gigamask: Gigamask, tmp_path: Path) -> None:
    Dataset.create(tmp_path / "data")
    done = gigamask("query", "--dataset", "data", "--format", "json", "SELECT count(*) AS n FROM masks", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"n": 0}]


def test_wrong_use_exits_with_2(gigamask: Gigamask, tmp_path: Path) -> None:
    assert gigamask("query", cwd=tmp_path).returncode == 2
    assert gigamask("frobnicate", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["query", "--dataset", "absent", "SELECT 1"], ["absent", "no dataset there"]),
        (["evaluate", "--data", "absent"], ["absent"]),
        (["evaluate", "--data", str(PHOTOS), "--model", "absent"], ["absent", "vit_b"]),
        (["evaluate", "--data", str(PHOTOS), "--clicks", "many"], ["clicks"]),
        (["run", str(PHOTOS), "--model", "absent"], ["absent", "vit_b"]),
        (["run", str(PHOTOS), "--set", "generate.speed=9"], ["generate.speed"]),
        (["run", str(PHOTOS), "--precision", "fp8"], ["generate.precision: got 'fp8'"]),
        (["masks", "--precision", "half"], ["generate.precision: got 'half'"]),
        (["run", "no-such-folder"], ["no-such-folder"]),
        (["run", "s3://bucket/photos"], ["copy them here first"]),
        (["ingest", str(ROOT / "tests" / "data" / "photos.zip")], ["no such file or folder"]),
        (["models", "pull", "vit_z"], ["vit_z", "vit_b"]),
    ],
)
def test_wrong_input_is_one_clear_error(
    gigamask: Gigamask, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    assert_one_clear_error(gigamask(*arguments, cwd=tmp_path), *words)


def test_a_folder_without_photographs_is_one_clear_error(gigamask: Gigamask, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("nothing to see")
    assert_one_clear_error(gigamask("run", "photos", cwd=tmp_path), "photos")


def test_a_damaged_checkpoint_is_one_clear_error_and_writes_nothing(gigamask: Gigamask, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 not a model")
    done = gigamask("run", str(PHOTOS), "--model", "model.safetensors", cwd=tmp_path)
    assert_one_clear_error(done, "model.safetensors")
    assert not (tmp_path / "gigamask-dataset").exists()


def test_a_dataset_that_cannot_be_written_is_one_clear_error(gigamask: Gigamask, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file stands where the dataset should be")
    assert_one_clear_error(gigamask("run", str(PHOTOS), "--dataset", "taken", cwd=tmp_path), "taken")


def test_the_doctor_finds_this_environment_healthy_and_a_missing_dataset_sick(
    gigamask: Gigamask, tmp_path: Path
) -> None:
    healthy = gigamask("doctor", "--json", cwd=tmp_path)
    assert healthy.returncode == 0, healthy.stdout
    assert {finding["what"] for finding in json.loads(healthy.stdout)} >= {"gigamask", "torch", "device", "seed model"}
    sick = gigamask("doctor", "--dataset", "absent", cwd=tmp_path)
    assert sick.returncode == 1
    assert "no dataset there" in sick.stdout
