"""Pieces of HTML. The function `text` escapes every value that comes from a dataset."""

import base64
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from storage.objects.atomic import replace_file


def document(title: str, body: str, *, head: str = "") -> str:
    """Render a whole page around the HTML `body`, with the style sheet inside the page and `head` first in its head."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"{head}"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{style}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def write_page(page: str, destination: Path) -> Path:
    """Write a page and return its path; an old page is replaced in one step."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    replace_file(destination, lambda file: file.write(page.encode()))
    return destination


def text(value: str) -> str:
    """Escape a value for use between tags and inside quoted attributes."""
    return escape(value, quote=True)


def note(words: str) -> str:
    """Render plain text as a note, in less prominent type."""
    return f'<p class="note">{text(words)}</p>'


def card(inside: str) -> str:
    """Render a box around HTML; the box scrolls sideways where its content is too wide."""
    return f'<div class="card scroll">{inside}</div>'


def tile(name: str, value: str, label: str, about: str = "") -> str:
    """Render a number in large type; `name` is the id of its HTML element."""
    small = f"<small>{about}</small>" if about else ""
    return f'<div class="card tile"><b id="{name}">{value}</b><span>{label}</span>{small}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Render a table whose cells are HTML; a column holds numbers if its name begins with #."""
    classes = [' class="number"' if column.startswith("#") else "" for column in columns]
    heads = "".join(f"<th{each}>{name.lstrip('#')}</th>" for each, name in zip(classes, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{each}>{cell}</td>" for each, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<table class="{kind}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def data_uri(data: bytes, kind: str) -> str:
    """Encode bytes as a `data:` address; `kind` is their media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def command(*arguments: str) -> str:
    """Render a `gigamask` command as HTML, quoted for a shell."""
    return f"<pre>{text(shlex.join(['gigamask', *arguments]))}</pre>"
