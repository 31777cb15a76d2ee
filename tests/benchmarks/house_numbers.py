"""Figures of the source itself, as JSON lines: folders, functions, docstrings, duplicates and the time to start.

    python tests/benchmarks/house_numbers.py [--source FOLDER] [--python PROGRAM]

The folder is any checkout, so that one script measures two commits. Only its packages count, not its tests.
"""

import argparse
import ast
import copy
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine", "flows", "stages", "storage", "annotation", "gigamask")
SMALL_DATASET = ROOT / "tests" / "data" / "dataset_0_1" / "dataset.tar.gz"
LONG_FUNCTION_LINES = 45
LONG_BODY_LINES = 25
DUPLICATE_STATEMENTS = 3
"""Consecutive statements that have to be equal, but for names and constants, to count as a duplicate."""
RUNS = 5
"""Each command runs this often; the figures are medians."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT, help="checkout to measure (default: this one)")
    parser.add_argument("--python", default=sys.executable, help="Python that has its dependencies")
    arguments = parser.parse_args()
    files = sorted(source_files(arguments.source))

    show_folders(arguments.source, files)
    show_functions(arguments.source, files)
    show_docstrings(files)
    show_duplicates(files)
    show_commands(arguments.source.resolve(), arguments.python)


def source_files(source: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from (source / package).rglob("*.py")
        if (source / f"{package}.py").exists():
            yield source / f"{package}.py"


def show_folders(source: Path, files: list[Path]) -> None:
    """Count the modules of each folder, `__init__.py` left out."""
    folders: dict[Path, int] = defaultdict(int)
    for file in files:
        folders[file.parent.relative_to(source)] += file.name != "__init__.py"
    largest = max(folders, key=lambda folder: folders[folder])
    show("files", len(files), "files", lines=sum(len(file.read_text().splitlines()) for file in files))
    show("files in the largest folder", folders[largest], "files", folder=str(largest))


def show_functions(source: Path, files: list[Path]) -> None:
    """Count long functions, and those long bodies that no comment divides."""
    lengths, long, walls, bodies = [], [], [], 0
    for file in files:
        comments = comment_lines(file)
        for function in functions_of(ast.parse(file.read_text())):
            where = f"{file.relative_to(source)}:{function.name}"
            length = lines_of(function)
            lengths.append(length)
            if length > LONG_FUNCTION_LINES:
                long.append(f"{where} {length}")
            statements = without_docstring(function)
            if not statements:
                continue
            first, last = statements[0].lineno, statements[-1].end_lineno or 0
            if last - first + 1 >= LONG_BODY_LINES:
                bodies += 1
                if not any(first <= line <= last for line in comments):
                    walls.append(f"{where} {last - first + 1}")
    show("functions", len(lengths), "functions", median_lines=statistics.median(lengths), longest_lines=max(lengths))
    show(f"functions over {LONG_FUNCTION_LINES} lines", len(long), "functions", which=sorted(long))
    show(f"bodies of {LONG_BODY_LINES} or more lines", bodies, "functions")
    show(f"bodies of {LONG_BODY_LINES} or more lines without a heading", len(walls), "functions", which=sorted(walls))


def functions_of(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines_of(function: Function) -> int:
    """Lines from `def` to the end, decorators left out."""
    return (function.end_lineno or 0) - function.lineno + 1


def without_docstring(node: Function | ast.ClassDef | ast.Module) -> list[ast.stmt]:
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


def comment_lines(file: Path) -> list[int]:
    """Numbers of the lines that hold a comment alone."""
    with file.open("rb") as source:
        tokens = list(tokenize.tokenize(source.readline))
    return [
        token.start[0]
        for token in tokens
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
    ]


def show_docstrings(files: list[Path]) -> None:
    """Count public modules, classes, functions and methods that have a docstring, and fields that have a note."""
    things, fields = [], []
    for file in files:
        tree = ast.parse(file.read_text())
        if file.name != "__init__.py":
            things.append(tree)
        things += public_definitions(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                fields += noted_fields(node)
    documented = sum(ast.get_docstring(thing) is not None for thing in things)
    show("public docstring coverage", documented / len(things), "fraction", documented=documented, public=len(things))
    show(
        "public fields with a note",
        sum(fields) / max(1, len(fields)),
        "fraction",
        noted=sum(fields),
        fields=len(fields),
    )


def public_definitions(node: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    """Public classes and functions of a module, and their public methods; not what is defined inside functions."""
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
            yield child
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_definitions(child)


def noted_fields(node: ast.ClassDef) -> list[bool]:
    """Whether each annotated public field is followed by a docstring."""
    return [
        isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
        for field, after in pairwise([*node.body, ast.Pass()])
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and not field.target.id.startswith("_")
    ]


def show_duplicates(files: list[Path]) -> None:
    """Count the groups of places at which the same statements stand, but for names and constants."""
    places: dict[str, set[tuple[Path, int]]] = defaultdict(set)
    for file in files:
        for body in bodies_of(ast.parse(file.read_text())):
            shapes = [shape_of(statement) for statement in body]
            for start in range(len(body) - DUPLICATE_STATEMENTS + 1):
                window = "\n".join(shapes[start : start + DUPLICATE_STATEMENTS])
                places[window].add((file, body[start].lineno))

    # A longer duplicate is several windows at neighbouring places: it counts once.
    groups: list[set[tuple[Path, int]]] = []
    seen: set[tuple[Path, int]] = set()
    for found in places.values():
        if len(found) > 1 and not all(place in seen for place in found):
            groups.append(found)
        if len(found) > 1:
            seen |= {(file, line + ahead) for file, line in found for ahead in range(DUPLICATE_STATEMENTS * 4)}
    which = [sorted(f"{file.name}:{line}" for file, line in group) for group in groups]
    show(f"groups of {DUPLICATE_STATEMENTS} or more duplicate statements", len(groups), "groups", which=sorted(which))


def bodies_of(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """Statement lists of functions and their blocks; classes are fields, so theirs are left out."""
    for function in functions_of(tree):
        yield without_docstring(function)
        for node in ast.walk(function):
            if isinstance(node, ast.For | ast.While | ast.If | ast.With | ast.Try):
                yield node.body


def shape_of(statement: ast.stmt) -> str:
    """A statement with every name, attribute and constant replaced by a blank."""
    statement = copy.deepcopy(statement)
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            node.id = "_"
        elif isinstance(node, ast.arg):
            node.arg = "_"
        elif isinstance(node, ast.Constant):
            node.value = None
    return ast.dump(statement)


def show_commands(source: Path, python: str) -> None:
    """Time a fresh process each: the import of the public module and two commands on a small dataset."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(SMALL_DATASET) as tar:
        tar.extractall(folder, filter="data")
        dataset = next(path.parent for path in sorted(Path(folder).rglob("dataset.json")))
        command = [python, "-m", "flows.cli"]
        query = [*command, "query", "--dataset", str(dataset), "SELECT count(*) AS masks FROM masks"]
        show_time("import gigamask", [python, "-c", "import gigamask"], source)
        show_time("gigamask --help", [*command, "--help"], source)
        show_time("gigamask query", query, source)


def show_time(name: str, command: list[str], source: Path) -> None:
    """Print the medians of wall and CPU seconds; what an empty Python takes is part of them and stands beside them."""
    empty = [measured([command[0], "-c", "pass"], source) for _ in range(RUNS)]
    times = [measured(command, source) for _ in range(RUNS + 1)][1:]  # the first fills the disk's cache
    if not all(succeeded for succeeded, _, _ in times):
        show(f"wall time of {name}", float("nan"), "s", failed=True)
        return
    for label, index in (("wall", 1), ("CPU", 2)):
        python_s = statistics.median(each[index] for each in empty)
        show(f"{label} time of {name}", statistics.median(each[index] for each in times), "s", empty_python_s=python_s)


def measured(command: list[str], source: Path) -> tuple[bool, float, float]:
    """Whether it succeeded, its wall and its CPU seconds."""
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return done.returncode == 0, time.perf_counter() - start, cpu_s


def show(metric: str, value: float, unit: str, **facts: object) -> None:
    figure = None if value != value else float(f"{value:.4g}")
    rounded = {name: float(f"{fact:.3g}") if isinstance(fact, float) else fact for name, fact in facts.items()}
    print(json.dumps({"bench": "house", "metric": metric, "value": figure, "unit": unit, **rounded}), flush=True)


if __name__ == "__main__":
    main()
