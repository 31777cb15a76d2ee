"""All documents of a release, made of its manifest and of the list of its files."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.release.documents.card import make_card
from stages.release.documents.croissant import make_croissant
from stages.release.documents.datasheet import make_datasheet
from stages.release.documents.licenses import make_licenses
from stages.release.folder import File, json_text


def make_documents(manifest: Mapping[str, Any], files: Sequence[File]) -> dict[str, str]:
    """Make the text of each document, by its path.

    Args:
        manifest: The manifest, without its files.
        files: Tars, tables and lists.
    """
    return {
        "README.md": make_card(manifest, files),
        "DATASHEET.md": make_datasheet(manifest),
        "LICENSES.md": make_licenses(manifest),
        "croissant.json": json_text(make_croissant(manifest, files)),
    }
