"""The section of a dozen images with their masks drawn over them, from most masks to fewest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from engine.automatic.diagnostics import Diagnostics
from flows.pages.markup import data_uri, note, text
from flows.report.contents import ReportContents
from flows.report.overlays import draw_overlay
from flows.words import sentence
from storage.errors import Erased
from storage.records import ImageRecord, MaskRecord
from storage.tables.samples import MASK_COLUMNS, read_image, read_masks
from storage.tables.sql import one_of

NUM_IMAGES = 12
"""Maximum number of images on the page."""


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """One image that the page shows, with its masks."""

    image: ImageRecord
    data: bytes
    """Bytes of the image's file, as stored."""
    masks: tuple[MaskRecord, ...]
    """Masks of the image in the set that was committed last."""
    diagnostics: Diagnostics | None
    """Counts of the image's kept and dropped candidates; None where the shard recorded none."""


def render(contents: ReportContents) -> str:
    """Render the section as HTML; "" where there are no images.

    Raises:
        Corrupt: An image or a mask is not what its row states.
    """
    shown = read_shown_images(contents)
    if not shown:
        return ""
    newest = contents.newest
    figures = "".join(_figure(each, masked=newest is not None) for each in shown)
    everything = newest.images if newest else contents.images
    spread = "spread evenly from most masks to fewest" if newest else "spread evenly over the dataset"
    rule = "Every image." if len(shown) >= everything else f"{len(shown)} of {everything:,} images, {spread}."
    return (
        f'<h2>Images</h2><div class="bar">{note(f"{rule} Select one to enlarge it.")}'
        '<label class="switch"><input type="checkbox" id="show-masks" checked>Show masks</label></div>'
        f'<div class="images">{figures}</div>'
    )


def read_shown_images(contents: ReportContents) -> list[ShownImage]:
    """Read the images to show, from the image with the most masks to the images without masks.

    The images with masks are sorted by number of masks, and images at even distances in that order are shown.

    Raises:
        Corrupt: An image or a mask is not what its row states.
    """
    newest = contents.newest
    if newest is None:
        rows = _rows_at_even_places(contents, "SELECT image_id FROM images", "image_id", NUM_IMAGES)
        return [shown for row in rows if (shown := _read(contents, row, [], None))]

    # Images without masks get their proportion of the places, at least one
    without_masks = contents.stats.without_masks
    bare_keys = sorted(without_masks)
    proportion = round(NUM_IMAGES * len(bare_keys) / max(1, newest.images))
    num_bare = min(len(bare_keys), max(1, proportion)) if bare_keys else 0

    # The rows of the chosen images
    counted = f"SELECT image_id, count(*) AS number FROM masks WHERE plan IN {newest.plans_sql} GROUP BY image_id"
    rows = _rows_at_even_places(contents, counted, "number, image_id", NUM_IMAGES - num_bare)
    if num_bare:
        chosen = one_of(bare_keys[place] for place in _even_places(len(bare_keys), num_bare))
        rows += contents.rows(f"SELECT * FROM images WHERE key IN {chosen} ORDER BY key")

    # Their masks
    masks = _mask_rows(contents, newest.plans_sql, [row["image_id"] for row in rows])
    read = (_read(contents, row, masks.get(row["image_id"], []), without_masks.get(row["key"])) for row in rows)
    return [shown for shown in read if shown]


def _rows_at_even_places(contents: ReportContents, images_sql: str, order: str, number: int) -> list[dict[str, Any]]:
    """Read rows of the table `images`: those at evenly spaced places of `images_sql`'s result, last place first."""
    total = contents.rows(f"SELECT count(*) AS number FROM ({images_sql})")[0]["number"]
    places = _even_places(total, number)
    if not places:
        return []
    ranked = f"SELECT image_id, row_number() OVER (ORDER BY {order}) - 1 AS place FROM ({images_sql})"
    wanted = ", ".join(str(place) for place in places)
    return contents.rows(
        f"""SELECT i.*, r.place FROM ({ranked}) r JOIN images i ON i.image_id = r.image_id
            WHERE r.place IN ({wanted}) ORDER BY r.place DESC"""
    )


def _even_places(total: int, number: int) -> list[int]:
    """Choose at most `number` evenly spaced places of 0..total-1, the first and the last included."""
    return sorted({round(place) for place in np.linspace(0, total - 1, min(total, number))})


def _mask_rows(contents: ReportContents, plans_sql: str, image_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Query the masks of the given images, and group them by image."""
    if not image_ids:
        return {}
    ids = ", ".join(str(image_id) for image_id in image_ids)
    rows = contents.rows(
        f"SELECT {', '.join(MASK_COLUMNS)} FROM masks WHERE plan IN {plans_sql} AND image_id IN ({ids})"
    )
    by_image: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row)
    return by_image


def _read(
    contents: ReportContents,
    row: Mapping[str, Any],
    mask_rows: Sequence[Mapping[str, Any]],
    diagnostics: Diagnostics | None,
) -> ShownImage | None:
    """Read an image and its masks; None where the image was erased meanwhile."""
    try:
        image, data = read_image(contents.dataset.store, row)
        masks = read_masks(contents.dataset.store, mask_rows)
    except Erased:
        return None
    return ShownImage(image=image, data=data, masks=tuple(masks), diagnostics=diagnostics)


def _figure(shown: ShownImage, *, masked: bool) -> str:
    overlay = draw_overlay(shown.data, shown.masks)
    name = text(PurePath(shown.image.source).name or shown.image.source)
    count, ratio = len(shown.masks), overlay.width / overlay.height
    number = f"{count:,} mask{'' if count == 1 else 's'}" if masked else "not masked yet"
    why = f'<span class="why">{text(_explain_none(shown.diagnostics))}</span>' if masked and not count else ""
    size = f'width="{overlay.width}" height="{overlay.height}"'
    below = f'<img alt="{name}" {size} src="{data_uri(overlay.image_jpeg, "image/jpeg")}">'
    masks = f'<img class="masks" alt="" {size} src="{data_uri(overlay.masks_png, "image/png")}">'
    pixels = f"{shown.image.width} × {shown.image.height} px"  # noqa: RUF001
    return (
        f'<figure style="--ratio:{ratio:.4f}"><label class="image">'
        f'<input class="zoom" type="checkbox" aria-label="Enlarge {name}">'
        f'<span class="shelf"><span style="width:{min(100.0, 75 * ratio):.2f}%">{below}{masks}</span></span></label>'
        f"<figcaption><b>{name}</b><br>{pixels} · {number}{why}</figcaption></figure>"
    )


def _explain_none(diagnostics: Diagnostics | None) -> str:
    if diagnostics is None or not diagnostics.candidates:
        return "No mask passed the filters."
    return sentence(diagnostics.explain())
