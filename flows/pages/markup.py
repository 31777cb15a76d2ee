"""Pieces of HTML. Whatever comes from a dataset passes through `text` on its way in."""

import base64
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from storage.objects.atomic import replace_file


def document(title: str, body: str) -> str:
    """Render a whole page with its style inside; `body` is HTML."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{style}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def write_page(page: str, destination: Path) -> Path:
    """Write a page and return its path; an old page is replaced whole."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    replace_file(destination, lambda file: file.write(page.encode()))
    return destination


def text(value: str) -> str:
    """Escape for use between tags and inside quoted attributes."""
    return escape(value, quote=True)


def note(words: str) -> str:
    """Render a quiet line of plain words."""
    return f'<p class="note">{text(words)}</p>'


def card(inside: str) -> str:
    """Render a box around HTML that scrolls sideways where it is too wide."""
    return f'<div class="card scroll">{inside}</div>'


def tile(name: str, value: str, label: str, about: str = "") -> str:
    """Render a number in large type; `name` is its element id."""
    small = f"<small>{about}</small>" if about else ""
    return f'<div class="card tile"><b id="{name}">{value}</b><span>{label}</span>{small}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Render a table; cells are HTML, and a column whose name begins with # holds numbers."""
    classes = [' class="number"' if column.startswith("#") else "" for column in columns]
    heads = "".join(f"<th{each}>{name.lstrip('#')}</th>" for each, name in zip(classes, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{each}>{cell}</td>" for each, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<table class="{kind}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def data_uri(data: bytes, kind: str) -> str:
    """Encode bytes of the media type `kind` as a data: address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def command(*arguments: str) -> str:
    """Render a `gigamask` command, quoted for a shell."""
    return f"<pre>{text(shlex.join(['gigamask', *arguments]))}</pre>"
