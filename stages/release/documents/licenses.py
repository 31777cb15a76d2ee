"""The page of licences, and the names that others give to them."""

from collections.abc import Mapping
from typing import Any

HUGGING_FACE = frozenset(
    (
        *("apache-2.0", "mit", "odbl", "odc-by", "pddl", "cc", "cc0-1.0"),
        *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
        *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    )
)
"""Licences that a card can name by an identifier of the Hugging Face hub."""
NONE_GIVEN = "none given"


def make_licenses(manifest: Mapping[str, Any]) -> str:
    """Make the page of licences."""
    rows = (f"| {cell(name) or NONE_GIVEN} | {count:,} |" for name, count in manifest["counts"]["licenses"].items())
    return f"""# Licences

Each image keeps the licence that was recorded when its photo was taken in. `ATTRIBUTIONS.csv` names licence and source
of every image, and so do the columns `license` and `source` of `images/*.parquet`. gigamask does not check licences.

| licence | images |
|---|---|
{chr(10).join(rows)}
"""


def names(manifest: Mapping[str, Any]) -> list[str]:
    """Return the licences of the images as they were given; a licence that was not given is left out."""
    return [name for name in manifest["counts"]["licenses"] if name]


def cell(text: str) -> str:
    """Make a text fit for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
