"""What commands print on stdout: results and tables, for people or as JSON.

Ids are 63-bit integers; JSON carries them as strings, because JavaScript and jq would round them.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

FORMATS = ("table", "csv", "json", "parquet")
NAMES_SHOWN = 5
"""A cell of a status table names this many shards; --json names all."""
TABLE_ROWS = 50
"""A table on the terminal shows this many rows; the other formats give all."""


def write_answer(answer: pa.Table, form: str, output: Path | None) -> None:
    """Write a query's answer as `form` to `output` or stdout. Raises ValueError for an unknown or misplaced form."""
    if form not in FORMATS:
        raise ValueError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    if form == "parquet":
        import pyarrow.parquet as pq

        if output is None:
            raise ValueError("--format parquet: binary output needs a file; add --output FILE")
        pq.write_table(answer, output)
        return
    text = {"table": _as_table, "csv": _as_csv, "json": _as_json}[form](answer)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


def print_result(result: Any, as_json: bool) -> None:
    """One result, a dataclass of plain values: a JSON object, or one aligned line a field."""
    fields = {item.name: getattr(result, item.name) for item in dataclasses.fields(result)}
    if as_json:
        print(json.dumps(_plain(dataclasses.asdict(result)), default=str))
        return
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        lines = [_cell(item) for item in value] if isinstance(value, (list, tuple)) else [_cell(value)]
        for line in lines or ["none"]:
            print(f"{name:<{width}}  {line}")


def print_rows(rows: list[Any], as_json: bool, empty: str) -> None:
    """A list of dataclasses of one kind: a JSON array, or a table; `empty` is said when there is none."""
    if as_json:
        print(json.dumps([_plain(dataclasses.asdict(row)) for row in rows], default=str))
    elif not rows:
        print(empty)
    else:
        names = [item.name for item in dataclasses.fields(rows[0])]
        sys.stdout.write(_render(names, [[_cell(getattr(row, name)) for name in names] for row in rows]))


def _as_table(answer: pa.Table) -> str:
    rows = answer.slice(0, TABLE_ROWS).to_pylist()
    text = _render(answer.column_names, [[_cell(value) for value in row.values()] for row in rows])
    hidden = answer.num_rows - len(rows)
    return text + (f"... and {hidden} more rows; --format csv, json or parquet gives all\n" if hidden > 0 else "")


def _as_csv(answer: pa.Table) -> str:
    import pyarrow.csv

    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(answer, sink)
    return str(sink.getvalue().to_pybytes(), "utf-8")


def _as_json(answer: pa.Table) -> str:
    return json.dumps([_plain(row) for row in answer.to_pylist()], default=str) + "\n"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if _is_id(name, value) else value for name, value in row.items()}


def _is_id(name: str, value: Any) -> bool:
    return isinstance(value, int) and name.endswith("_id")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        hidden = len(value) - NAMES_SHOWN
        shown = ", ".join(map(str, value[:NAMES_SHOWN])) or "none"
        return shown + (f" and {hidden} more" if hidden > 0 else "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _render(names: list[str], rows: list[list[str]]) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
