"""Write the generated parts of these pages: docs/commands.md and the reference in docs/python-api.md.

python docs/generate.py

Commands come from the command line itself, the reference from signatures and docstrings. Tests fail while a page is not
current.
"""

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

import gigamask
from flows.cli.main import app

DOCS = Path(__file__).parent
COMMANDS_PAGE = DOCS / "commands.md"
API_PAGE = DOCS / "python-api.md"
BEGIN, END = "<!-- reference -->\n", "<!-- end of reference -->"
SECTION = re.compile(r"^(Args|Returns|Raises|Yields):\n((?:    .*\n|\n)*)", re.MULTILINE)
TITLES = {"Args": "Arguments", "Returns": "Returns", "Raises": "Raises", "Yields": "Yields"}


def main() -> None:
    """Write both pages."""
    COMMANDS_PAGE.write_text(commands_page())
    API_PAGE.write_text(api_page(API_PAGE.read_text()))


def commands_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    parts = [COMMANDS_INTRODUCTION]
    root = get_command(app)
    for path, command in _commands("gigamask", root):
        parts += [f"## {path}\n", f"{_help_text(command)}\n", f"```\n{path} {_usage(command)}\n```\n"]
        rows = [row for parameter in command.params if (row := _parameter_row(parameter))]
        if rows:
            parts += ["| | meaning | default |\n|---|---|---|\n" + "".join(rows)]
    return "\n".join(parts)


COMMANDS_INTRODUCTION = """# Commands

*Generated from the command line itself by `python docs/generate.py`.*

Every command prints its results on stdout and its progress on stderr. `--json` (`--format json` of `query`) makes the
results readable for scripts. `GIGAMASK_DEBUG=1` shows where an unexpected error happened.

Exit status: 0 done; 1 the command failed, or refused its input, with a message; 2 the command line does not know an
option, or an option's value is malformed.

A setting of any component is given as `--set KEY=VALUE`, such as `--set generate.points_per_side=16`, or in a TOML file
with `--config`. An unknown key is refused; the message names the nearest known key, or else all known keys. Later
sources win: defaults, preset, file, `--set`, then named options.
"""


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Each command that does something, with the words that call it."""
    children = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name in sorted(children):
        if not children[name].hidden:
            yield from _commands(f"{path} {name}", children[name])


def _help_text(command: Any) -> str:
    paragraphs = textwrap.dedent(command.help or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _usage(command: Any) -> str:
    """The arguments and the options that have to be given."""
    words = []
    for parameter in command.params:
        if _is_argument(parameter):
            name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
            words.append(name if parameter.required else f"[{name}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {parameter.name.upper()}")
    return " ".join([*words, "[OPTIONS]"])


def _parameter_row(parameter: Any) -> str:
    """The table row of a parameter; "" for a hidden one."""
    if parameter.hidden:
        return ""
    name = parameter.name.upper() if _is_argument(parameter) else ", ".join(parameter.opts)
    meaning = " ".join((parameter.help or "").split()).replace("|", "\\|")
    return f"| `{name}` | {meaning} | {_default(parameter)} |\n"


def _is_argument(parameter: Any) -> bool:
    return not parameter.opts[0].startswith("-")


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.required:
        return "required"
    if parameter.default in (None, False, (), []) or callable(parameter.default):
        return ""
    return f"`{parameter.default}`"


def api_page(page: str) -> str:
    """The page with its reference written anew; what stands before it and after it stays."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + reference() + END + after


def reference() -> str:
    """Every public name with its signature and docstring, in the groups of `gigamask.__all__`."""
    source = (DOCS.parent / "gigamask" / "__init__.py").read_text()
    listing = source.partition("__all__ = [")[2].partition("]")[0].split("\n", 1)[1]
    parts = []
    for line in listing.splitlines():
        word = line.strip().rstrip(",").strip('"')
        if word.startswith("# "):
            parts.append(f"\n## {word[2:]}\n")
        elif word and not word.startswith("__"):
            parts.append(_entry(word))
    return "\n".join(parts) + "\n"


def _entry(name: str) -> str:
    home = gigamask._HOME_OF[name]
    if home in ("engine", "storage"):
        return _module_entry(name, importlib.import_module(f"{home}.{name}"))
    node = _definition(home, name)
    head = f"\n### {name}\n\n"
    if isinstance(node, ast.FunctionDef):
        return head + f"```python\n{_signature(node)}\n```\n\n{_markdown(ast.get_docstring(node))}"
    if isinstance(node, ast.ClassDef):
        return head + _class_body(node)
    return head + _markdown(ast.literal_eval(_note_after(home, name)))


def _module_entry(name: str, module: object) -> str:
    """A module is shown by its functions' first sentences."""
    path = Path(str(module.__file__))  # type: ignore[attr-defined]
    tree = ast.parse(path.read_text())
    rows = [
        _item(f"{name}.{_short_signature(node)}", node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    return f"\n### {name}\n\n{_markdown(ast.get_docstring(tree))}\n\n**Functions**\n\n{''.join(rows)}"


def _definition(home: str, name: str) -> ast.stmt | None:
    tree = ast.parse(Path(str(importlib.import_module(home).__file__)).read_text())
    named = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    return next((node for node in named if node.name == name), None)


def _note_after(home: str, name: str) -> str:
    """The docstring below a constant, as source."""
    source = Path(str(importlib.import_module(home).__file__)).read_text()
    tree = ast.parse(source)
    for node, note in zip(tree.body, tree.body[1:], strict=False):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.get_source_segment(source, note) or '""'
    return '""'


def _class_body(node: ast.ClassDef) -> str:
    """Docstring, a table of the fields, a list of the public methods."""
    parts = [_markdown(ast.get_docstring(node))]
    fields, methods = _fields(node), _methods(node)
    if fields:
        parts.append("\n\n| field | type | default | meaning |\n|---|---|---|---|\n" + "".join(fields))
    if methods:
        parts.append("\n\n**Methods and properties**\n\n" + "".join(methods))
    return "".join(parts)


def _fields(node: ast.ClassDef) -> list[str]:
    rows = []
    for statement, note in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if statement.target.id.startswith("_"):
            continue
        is_note = isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant)
        meaning = " ".join(str(note.value.value).split()) if is_note else ""  # type: ignore[union-attr]
        default = f"`{ast.unparse(statement.value)}`" if statement.value else ""
        kind = ast.unparse(statement.annotation).replace(" | ", " or ")  # a bar would end the cell
        rows.append(f"| `{statement.target.id}` | `{kind}` | {default} | {meaning.replace('|', chr(92) + '|')} |\n")
    return rows


def _methods(node: ast.ClassDef) -> list[str]:
    rows = []
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
            decorators = {ast.unparse(decorator) for decorator in member.decorator_list}
            name = member.name if {"property", "cached_property"} & decorators else _short_signature(member)
            rows.append(_item(name, member))
    return rows


def _signature(node: ast.FunctionDef) -> str:
    """The whole signature; one parameter a line where it is long."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = ast.unparse(node.args)
    line = f"{node.name}({arguments}){returns}"
    if len(line) <= 100:
        return line
    return f"{node.name}(\n    {(',' + chr(10) + '    ').join(_split_arguments(arguments))},\n){returns}"


def _split_arguments(arguments: str) -> list[str]:
    """Arguments at the commas that stand outside brackets."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(arguments):
        depth += character in "([{"
        depth -= character in ")]}"
        if character == "," and depth == 0:
            parts.append(arguments[start:position].strip())
            start = position + 1
    return [*parts, arguments[start:].strip()]


def _short_signature(node: ast.FunctionDef) -> str:
    """Name and parameters without their types; self and cls left out."""
    arguments = node.args
    plain = [argument.arg for argument in arguments.posonlyargs + arguments.args]
    names = plain[1:] if plain[:1] in (["self"], ["cls"]) else plain
    if arguments.kwonlyargs:
        names += ["*"] + [argument.arg for argument in arguments.kwonlyargs]
    return f"{node.name}({', '.join(names)})"


def _item(name: str, node: ast.FunctionDef) -> str:
    """A list item: the name and the first paragraph of the docstring."""
    paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return f"- `{name}`: {paragraph}\n" if paragraph else f"- `{name}`\n"


def _markdown(docstring: str | None) -> str:
    """A Google docstring as Markdown: sections become bold titles over lists."""
    return SECTION.sub(_section, (docstring or "").strip() + "\n").strip()


def _section(match: re.Match[str]) -> str:
    items: list[str] = []
    for line in textwrap.dedent(match[2]).splitlines():
        if line.startswith("    ") and items:
            items[-1] += f" {line.strip()}"
        elif line.strip():
            items.append(line.strip())
    if match[1] in ("Returns", "Yields"):
        items = [" ".join(items)]
    named = (re.sub(r"^(\w+): ", r"`\1`: ", item) for item in items)
    return f"**{TITLES[match[1]]}**\n\n" + "".join(f"- {item}\n" for item in named) + "\n"


if __name__ == "__main__":
    main()
