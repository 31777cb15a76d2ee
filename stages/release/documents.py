"""Documents of a release, made of its manifest: the page that people read first, and the licences."""

from collections.abc import Mapping
from typing import Any

NOT_DEIDENTIFIED = (
    "Faces and licence plates were not blurred: gigamask cannot do that yet, and this release was made without. People "
    "and vehicles may be recognisable in the images, unless they were made unrecognisable before gigamask took them in."
)
"""What every release says until images can be de-identified."""


def make_documents(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Make the text of each document, by its path."""
    return {"README.md": _readme(manifest), "LICENSES.md": _licenses(manifest)}


def _readme(manifest: Mapping[str, Any]) -> str:
    left_out = manifest["left_out"]
    lines = [
        "# Images and masks",
        "",
        f"{manifest['images']:,} images with {manifest['masks']:,} masks, in the form of SA-1B.",
        "",
        "## Privacy",
        "",
        NOT_DEIDENTIFIED,
        "",
        "## Left out",
        "",
        *(f"- images, {reason}: {count:,}" for reason, count in left_out["images"].items()),
        *(f"- masks, {reason}: {count:,}" for reason, count in left_out["masks"].items()),
    ]
    return "\n".join(lines) + "\n"


def _licenses(manifest: Mapping[str, Any]) -> str:
    lines = [
        "# Licences",
        "",
        "Each image keeps the licence that was recorded when its photo was taken in. `ATTRIBUTIONS.csv` and the column "
        "`license` of `images/*.parquet` name it for every image.",
        "",
        "| licence | images |",
        "|---|---|",
        *(f"| {name or 'none given'} | {count:,} |" for name, count in manifest["counts"]["licenses"].items()),
    ]
    return "\n".join(lines) + "\n"
