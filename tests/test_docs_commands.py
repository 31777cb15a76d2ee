"""README and docs: their Python runs, their commands parse, their paths exist, and generated pages are current."""

import ast
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flows.cli.main import app
from tests.paths import PHOTOS, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_README_LINES = 120


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text().split("<!-- reference -->")[0], re.DOTALL))


@pytest.mark.parametrize("page", ["README.md", "docs/python-api.md"])
@pytest.mark.slow
def test_the_python_of_the_page_runs(page: str, tmp_path: Path) -> None:
    """As written, one block after the other, in a folder with photo.jpg (800 x 600) and two photos in photos/."""
    (tmp_path / "photos").mkdir()
    shutil.copy(PHOTOS / "nuts" / "nuts_0.jpg", tmp_path / "photo.jpg")
    for photo in sorted((PHOTOS / "nuclei").glob("*.png"))[:2]:
        shutil.copy(photo, tmp_path / "photos")
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{python_of(ROOT / page)}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


def gigamask_lines() -> list[tuple[str, str]]:
    """(page, command) of every whole `gigamask` command in a block of a page; overviews with `|` or `[` left out."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                command = re.sub(r"^\w+=\S+ ", "", line.strip())
                if command.startswith("gigamask ") and not re.search(r"[|\[]", command.split('"')[0]):
                    found.append((page.name, command))
    return found


@pytest.mark.parametrize(("page", "command"), gigamask_lines())
def test_the_commands_of_the_pages_are_taken(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    node: Any = get_command(app)
    while getattr(node, "commands", None):
        node = node.commands[words.pop(0)]
    node.make_context(command, words)


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert re.search(rf"gigamask [^\n]*\b{name}\b", readme), f"{name} is not in the README"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


def test_generated_pages_are_current() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    stale = "not current: run `python docs/generate.py`"
    assert generate["COMMANDS_PAGE"].read_text() == generate["commands_page"](), stale
    page = generate["API_PAGE"].read_text()
    assert page == generate["api_page"](page), stale


def test_every_function_of_the_architecture_page_is_where_it_says() -> None:
    rows = re.findall(r"^\| [^|]+ \| (`[^|]+`) \| `([^|`]+\.py)` \|$", PAGES_BY_NAME["architecture.md"], re.MULTILINE)
    assert len(rows) > 20
    for functions, path in rows:
        defined = definitions(ROOT / path)
        for function in re.findall(r"`([^`]+)`", functions):
            assert function in defined, f"docs/architecture.md: {function} is not in {path}"


def definitions(path: Path) -> set[str]:
    """Names of the functions and classes of a file; methods as Class.method."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{member.name}" for member in node.body if isinstance(member, ast.FunctionDef)}
    return names


PAGES_BY_NAME = {page.name: page.read_text() for page in PAGES}


@pytest.mark.parametrize("name", sorted(PAGES_BY_NAME))
def test_every_link_and_path_of_the_page_leads_somewhere(name: str) -> None:
    page = next(each for each in PAGES if each.name == name)
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    paths = re.findall(r"`((?:engine|flows|stages|storage|tests|examples|docs|gigamask)/[\w./*-]+\.\w+)`", text)
    for target in links:
        assert (page.parent / target).exists(), f"{name}: {target}"
    for target in paths:
        assert list(ROOT.glob(target)), f"{name}: {target}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="the docs extra is not installed")
    for part in ("docs", "zensical.toml"):
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    fetched = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?://")
    for page in (tmp_path / "build" / "site").rglob("*.html"):
        assert not fetched.search(page.read_text()), f"{page.name} fetches something from outside"
