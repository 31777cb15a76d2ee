"""The tutorial's picture: things on a table, drawn by formulas, so that what is where is known to the pixel.

It is no image of any dataset: the server answers clicks on it, and nothing that is done with it is stored. Shape
letters: H and W height and width of the picture.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from engine import images
from stages.annotator.pictures import Picture, PictureSource
from storage import rle
from storage.records import ImageRecord
from storage.rle import Rle

HEIGHT, WIDTH = 640, 960
TUTORIAL_ID = int.from_bytes(hashlib.sha256(b"gigamask tutorial").digest()[:8]) >> 1
"""Id of the picture; no image of a dataset has it."""
JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class Tutorial:
    """The picture, and where its things are."""

    picture: Picture
    things: dict[str, Rle]
    """Visible pixels of each thing, by its name; the coffee is part of the cup."""
    given: dict[str, Rle]
    """Masks that the tutorial begins with, by name: good ones, a bitten one, halves, and one of nothing."""


class WithTutorial:
    """Pictures of a source, and that of the tutorial beside them."""

    def __init__(self, source: PictureSource) -> None:
        self._source = source

    def get(self, image_id: int) -> Picture:
        """Read an image, or the tutorial's picture.

        Raises:
            NotFound: There is no image with this id.
        """
        return tutorial().picture if image_id == TUTORIAL_ID else self._source.get(image_id)


@cache
def tutorial() -> Tutorial:
    """Draw the picture, once a process."""
    table = _Table()
    _draw_leaf(table)
    _draw_cup(table)
    _draw_round(table, "orange", (770, 440), 92, (226, 122, 34), (247, 160, 70))
    _draw_round(table, "pebble", (148, 486), 58, (108, 112, 122), (150, 155, 166))
    _draw_pencil(table)
    _draw_round(table, "coin", (842, 118), 44, (190, 146, 48), (240, 205, 110))
    row_HW, column_HW = table.grid
    things = table.things | {"coffee": _coffee(table) > 0}
    bite_HW = np.hypot(column_HW - 846, row_HW - 392) < 46
    given = {  # the list shows the last one first
        "pencil-1": things["pencil"] & (column_HW < 470),
        "pencil-2": things["pencil"] & (column_HW >= 470),
        "orange": things["orange"] & ~bite_HW,
        "nothing": np.hypot((column_HW - 330) / 70, (row_HW - 388) / 38) < 1,
        "pebble": things["pebble"],
    }
    return Tutorial(
        picture=_picture(table.pixels_HW3.clip(0, 255).astype(np.uint8)),
        things={name: rle.encode(mask_HW) for name, mask_HW in things.items()},
        given={name: rle.encode(mask_HW) for name, mask_HW in given.items()},
    )


class _Table:
    """Pixels of a wooden table, and the things that lie on it so far."""

    def __init__(self) -> None:
        self.grid = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
        self.things: dict[str, np.ndarray] = {}
        row_HW, column_HW = self.grid
        noise = np.random.default_rng(7)
        waves = sum(
            np.sin(row_HW / length + 0.9 * np.sin(column_HW / 210 + phase) + phase)
            for length, phase in zip((5.0, 9.0, 17.0, 41.0), noise.uniform(0, 6, 4), strict=True)
        )
        grain_HW = 5 * waves + noise.normal(0, 3, (HEIGHT, WIDTH))
        self.pixels_HW3 = np.array([176.0, 132.0, 92.0]) + grain_HW[..., None] * np.array([1.0, 0.85, 0.65])

    def lay(self, name: str, distance_HW: np.ndarray, colour: np.ndarray) -> None:
        """Lay a thing on the table, with a shadow; it covers what lies there.

        Args:
            name: Name of the thing; a name again adds to it.
            distance_HW: Pixels inside the thing's border, negative outside.
            colour: RGB of the thing, for all pixels [3] or each [H, W, 3].
        """
        shadow_HW = np.roll(np.clip(distance_HW / 9 + 1, 0, 1), (7, 5), (0, 1))
        if name not in self.things:
            self.pixels_HW3 *= 1 - 0.42 * shadow_HW[..., None]
        cover_HW1 = np.clip(distance_HW + 0.5, 0, 1)[..., None]
        self.pixels_HW3 = self.pixels_HW3 * (1 - cover_HW1) + colour * cover_HW1
        inside_HW = distance_HW > 0
        for other in self.things.keys() - {name}:
            self.things[other] = self.things[other] & ~inside_HW
        self.things[name] = self.things.get(name, np.zeros((HEIGHT, WIDTH), bool)) | inside_HW

    def turned(self, x: float, y: float, degrees: float) -> tuple[np.ndarray, np.ndarray]:
        """Return coordinates along and across an axis through a point."""
        row_HW, column_HW = self.grid
        angle = np.deg2rad(degrees)
        along_HW = (column_HW - x) * np.cos(angle) + (row_HW - y) * np.sin(angle)
        return along_HW, (row_HW - y) * np.cos(angle) - (column_HW - x) * np.sin(angle)


def _draw_leaf(table: _Table) -> None:
    """Draw a leaf of a light and a dark half."""
    along_HW, across_HW = table.turned(246, 206, -24)
    lens_HW = np.minimum(250 - np.hypot(along_HW, across_HW - 178), 250 - np.hypot(along_HW, across_HW + 178))
    veins_HW = np.abs(np.mod(along_HW - 0.9 * np.abs(across_HW), 34) - 17)
    halves_HW3 = np.where(across_HW[..., None] < 0, (96.0, 152.0, 58.0), (52.0, 106.0, 44.0))
    stalk_HW = np.minimum(4 - np.abs(across_HW), 212 - np.abs(along_HW))
    table.lay("leaf", np.maximum(lens_HW, stalk_HW), halves_HW3 + np.where(veins_HW < 1.5, 26, 0)[..., None])


def _draw_cup(table: _Table) -> None:
    """Draw a cup of coffee on its saucer, from above."""
    row_HW, column_HW = table.grid
    away_HW = np.hypot(column_HW - 566, row_HW - 190)
    light_HW1 = ((566 - column_HW + 190 - row_HW) / 12)[..., None]
    saucer_HW3 = np.array([226.0, 228.0, 232.0]) + light_HW1
    handle_HW = np.minimum(13 - np.abs(row_HW - 190), np.minimum(column_HW - 566, 686 - column_HW))
    table.lay("cup", 132 - away_HW, saucer_HW3)
    table.lay("cup", np.maximum(78 - away_HW, handle_HW), np.array([58.0, 104.0, 150.0]) + 1.5 * light_HW1)
    table.lay("cup", _coffee(table), np.array([74.0, 44.0, 28.0]) + 0.6 * light_HW1)


def _coffee(table: _Table) -> np.ndarray:
    """Return the distance of each pixel to the border of the coffee, negative outside."""
    row_HW, column_HW = table.grid
    return np.asarray(62 - np.hypot(column_HW - 566, row_HW - 190))


def _draw_pencil(table: _Table) -> None:
    """Draw a yellow pencil with a point of wood and lead."""
    along_HW, across_HW = table.turned(480, 470, -14)
    body_HW = np.minimum(13 - np.abs(across_HW), np.minimum(along_HW + 170, 120 - along_HW))
    table.lay("pencil", body_HW, np.array([236.0, 190.0, 40.0]) - 3.5 * across_HW[..., None])
    tip_HW = np.minimum((165 - along_HW) * 0.29 - np.abs(across_HW), along_HW - 119)
    lead_HW1 = (along_HW > 148)[..., None]
    table.lay("pencil", tip_HW, np.where(lead_HW1, (52.0, 52.0, 58.0), (222.0, 186.0, 140.0)))


def _draw_round(
    table: _Table,
    name: str,
    centre_xy: tuple[float, float],
    radius: float,
    dark: tuple[float, float, float],
    light: tuple[float, float, float],
) -> None:
    """Draw a ball, lit from the upper left."""
    row_HW, column_HW = table.grid
    x, y = centre_xy
    lit_HW = np.clip(1 - np.hypot(column_HW - x + radius * 0.4, row_HW - y + radius * 0.4) / (1.5 * radius), 0, 1)
    colour_HW3 = np.array(dark) + lit_HW[..., None] * (np.array(light) - np.array(dark))
    table.lay(name, radius - np.hypot(column_HW - x, row_HW - y), colour_HW3)


def _picture(pixels_HW3: np.ndarray) -> Picture:
    """Write the pixels as a JPEG, and describe it as an image."""
    file = io.BytesIO()
    Image.fromarray(pixels_HW3).save(file, "JPEG", quality=JPEG_QUALITY)
    data = file.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    record = ImageRecord(
        image_id=TUTORIAL_ID,
        key=f"{TUTORIAL_ID:016x}",
        height=HEIGHT,
        width=WIDTH,
        format="jpg",
        nbytes=len(data),
        source="tutorial",
        source_sha256=sha256,
        stored_sha256=sha256,
        license="",
        country="",
    )
    return Picture(record=record, data=data, pixels_HW3=images.decode(data))
