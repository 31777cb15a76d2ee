"""Output on stdout: results and tables, for people or as JSON.

Ids are 63-bit integers; JSON carries them as strings, because JavaScript and jq would round them. It has no NaN and no
infinity: both are null.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "parquet")
NAMES_SHOWN = 5
"""Maximum number of shard names in a cell of a status table; --json lists all names."""
MAX_JSON_INTEGER = 2**53
"""Largest whole number that readers of JSON do not round; JSON carries larger ones as text."""
OnRows = Callable[[int, int], None]
"""Function that is called after some rows, with the numbers of rows written and of all rows."""
_BATCH_ROWS = 10_000
_PARQUET_ROWS = 2**20
"""Number of rows of a row group of Parquet."""
TABLE_ROWS = 50
"""Maximum number of rows that a table on the terminal shows; the other formats hold all rows."""


def check_format(form: str, output: Path | None) -> None:
    """Check that a query's result can be written as `form`.

    Raises:
        ValueError: The form is unknown, or parquet has no file to go to.
    """
    if form not in FORMATS:
        raise ValueError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    if form == "parquet" and output is None:
        raise ValueError("--format parquet: binary output needs a file; add --output FILE")


def write_rows(
    table: "pa.Table", form: str, output: Path | None, *, on_rows: OnRows = lambda done, total: None
) -> None:
    """Write the result of a query as `form` to the file `output`, or to stdout if `output` is None.

    Args:
        table: The result.
        form: One of FORMATS.
        output: The file; None for stdout.
        on_rows: Function that is called after some rows, with the numbers of rows written and of all rows.

    Raises:
        ValueError: The form is unknown, or parquet has no file to go to.
    """
    check_format(form, output)
    if form == "parquet":
        _write_parquet(table, output, on_rows)
        return
    if form == "table":
        texts = _as_table(table)
    else:
        texts = {"csv": _as_csv, "json": _as_json}[form](table, on_rows)
    if output is None:
        if form == "csv":  # whatever the terminal's encoding: programs read it
            sys.stdout.flush()
            sys.stdout.buffer.writelines(text.encode() for text in texts)
        else:
            sys.stdout.writelines(texts)
        return
    with output.open("w", encoding="utf-8") as file:
        file.writelines(texts)


def print_result(result: Any, as_json: bool) -> None:
    """Print a dataclass as a JSON object, or as aligned lines: one for each field, or each item of a field."""
    fields = {item.name: getattr(result, item.name) for item in dataclasses.fields(result)}
    if as_json:
        print(json.dumps(_plain(dataclasses.asdict(result)), default=str, allow_nan=False))
        return
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        if isinstance(value, Mapping):
            lines = [f"{key} {_cell(item)}" for key, item in value.items()]
        else:
            lines = [_cell(item) for item in value] if isinstance(value, (list, tuple)) else [_cell(value)]
        for line in lines or ["none"]:
            print(f"{name:<{width}}  {_visible(line)}")


def print_rows(rows: Sequence[Any], as_json: bool, empty: str) -> None:
    """Print several dataclasses of one class.

    Args:
        rows: The dataclasses.
        as_json: Whether to print a JSON array; otherwise a table is printed.
        empty: Text to print in place of a table without rows.
    """
    if as_json:
        print(json.dumps([_plain(dataclasses.asdict(row)) for row in rows], default=str, allow_nan=False))
    elif not rows:
        print(empty)
    else:
        names = [item.name for item in dataclasses.fields(rows[0])]
        sys.stdout.write(_render(names, [[_cell(getattr(row, name)) for name in names] for row in rows]))


def _as_table(table: "pa.Table") -> Iterator[str]:
    rows = table.slice(0, TABLE_ROWS).to_pylist()
    text = _render(table.column_names, [[_cell(value) for value in row.values()] for row in rows])
    hidden = table.num_rows - len(rows)
    yield text + (f"... and {hidden} more rows; --format csv, json or parquet gives all\n" if hidden > 0 else "")


def _write_parquet(table: "pa.Table", output: Path | None, on_rows: OnRows) -> None:
    import pyarrow.parquet as pq

    assert output is not None
    with pq.ParquetWriter(output, table.schema) as writer:
        for batch in _batches(table, _PARQUET_ROWS, on_rows):
            writer.write_table(batch)


def _batches(table: "pa.Table", rows: int, on_rows: OnRows) -> Iterator["pa.Table"]:
    """Cut a table into parts of so many rows; one without rows is one part. Say after each part what is written."""
    for start in range(0, max(table.num_rows, 1), rows):
        yield table.slice(start, rows)
        on_rows(min(start + rows, table.num_rows), table.num_rows)


def _as_csv(table: "pa.Table", on_rows: OnRows) -> Iterator[str]:
    """Format a table as CSV, batch by batch, because text takes several times the memory of the table."""
    import pyarrow as pa
    import pyarrow.csv

    for number, batch in enumerate(_batches(table, _BATCH_ROWS, on_rows)):
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(batch, sink, pyarrow.csv.WriteOptions(include_header=number == 0))
        yield str(sink.getvalue().to_pybytes(), "utf-8")


def _as_json(table: "pa.Table", on_rows: OnRows) -> Iterator[str]:
    """Format a table as a JSON array, row by row, because text takes several times the memory of the table."""
    before = "["
    for batch in _batches(table, _BATCH_ROWS, on_rows):
        for row in batch.to_pylist():
            yield before + json.dumps(_plain(row), default=str, allow_nan=False)
            before = ", "
    yield "[]\n" if before == "[" else "]\n"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(name, value) for name, value in row.items()}


def _plain_value(name: str, value: Any) -> Any:
    """Return a value that every JSON reader reads as it is: ids and large whole numbers as text, no number as null."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if name.endswith("_id") or abs(value) > MAX_JSON_INTEGER else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return _plain(value)
    return [_plain_value(name, each) for each in value] if isinstance(value, (list, tuple)) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        hidden = len(value) - NAMES_SHOWN
        shown = ", ".join(map(str, value[:NAMES_SHOWN])) or "none"
        return shown + (f" and {hidden} more" if hidden > 0 else "")
    if dataclasses.is_dataclass(value):
        return ", ".join(f"{item.name} {_cell(getattr(value, item.name))}" for item in dataclasses.fields(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _visible(text: str) -> str:
    """Replace control characters by escapes, so that a file's name cannot control the terminal."""
    return "".join(
        mark if mark.isprintable() or mark in "\n\t" else mark.encode("unicode_escape").decode() for mark in text
    )


def _render(names: list[str], rows: list[list[str]]) -> str:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        grid.add_column(escape(_visible(name)), overflow="fold")
    for row in rows:
        grid.add_row(*(escape(_visible(cell)) for cell in row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, highlight=False)
    with console.capture() as captured:
        console.print(grid)
    return captured.get()
