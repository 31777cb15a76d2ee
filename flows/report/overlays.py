"""Overlays: a JPEG of an image and, of the same size, a transparent PNG of its masks.

With two layers the page can show the image with and without masks, and a PNG of a few flat colours is small.
In array shapes, H and W are the size of the display copy; C is the number of colours in the palette.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from storage import rle
from storage.records import MaskRecord

LONGEST_SIDE_PX = 1024
"""Maximum length of a display copy's longest side, in pixels."""
SHORTEST_SIDE_PX = 480
"""Shortest side of an enlarged small image, in pixels; so its outlines stay thin beside what they enclose."""
FILL_ALPHA = 0.42
OUTLINE_ALPHA = 0.92
JPEG_QUALITIES = (82, 70, 55, 40)
MAX_JPEG_BYTES = 200_000

PALETTE_RGB = (
    (239, 71, 111), (255, 209, 102), (6, 214, 160), (58, 134, 255), (251, 133, 0), (157, 78, 221),
    (0, 187, 249), (163, 230, 53), (255, 93, 213), (0, 150, 136), (255, 140, 122), (99, 102, 241),
    (222, 184, 35), (34, 197, 94), (192, 132, 252), (214, 40, 40), (125, 211, 252), (217, 119, 6),
)  # fmt: skip
"""Fill colours as RGB, far apart in hue and rare in photos at this strength."""


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """Display copy of an image in two layers: the image as a JPEG, and its masks as a transparent PNG to lay on top.

    Both layers are `width` x `height` pixels.
    """

    width: int
    height: int
    image_jpeg: bytes
    masks_png: bytes


def draw_overlay(image: bytes, masks: Sequence[MaskRecord]) -> Overlay:
    """Draw the masks of a stored image. Small masks are drawn above large masks; touching masks differ in colour."""
    copy = _display_copy(image)
    labels_HW = label_masks(masks, (copy.height, copy.width))
    return Overlay(
        width=copy.width,
        height=copy.height,
        image_jpeg=_encode_jpeg(copy),
        masks_png=_encode_labels(labels_HW),
    )


def flatten(overlay: Overlay) -> Image.Image:
    """Blend the two layers of an overlay into one RGB image."""
    below = Image.open(io.BytesIO(overlay.image_jpeg)).convert("RGBA")
    masks = Image.open(io.BytesIO(overlay.masks_png)).convert("RGBA")
    return Image.alpha_composite(below, masks).convert("RGB")


def label_masks(masks: Sequence[MaskRecord], size_hw: tuple[int, int]) -> np.ndarray:
    """Compute the colour index of each pixel of the display copy; uint8 [H, W].

    Index 0 is a pixel without a mask. With C colours in the palette, 1..C is the fill of a mask, and C+1..2C is the
    outline of a mask whose fill has the index minus C.
    """
    fill_HW = np.zeros(size_hw, np.uint8)
    outline_HW = np.zeros(size_hw, np.bool_)
    used_C = np.zeros(len(PALETTE_RGB), np.int64)
    for mask in sorted(masks, key=lambda mask: (-mask.area_px, mask.mask_id)):
        mask_HW = _shrink(rle.decode(mask.rle), size_hw)
        if not mask_HW.any():
            continue
        y, x = _window(mask_HW, margin=3)
        inside = mask_HW[y, x]
        colour = _pick_colour(_colours_around(fill_HW[y, x], inside), used_C)
        used_C[colour] += 1
        fill_HW[y, x][inside] = colour + 1
        outline_HW[y, x][inside] = _edge(inside)[inside]
    return fill_HW + np.where(outline_HW, len(PALETTE_RGB), 0).astype(np.uint8)


def _display_copy(image: bytes) -> Image.Image:
    """Decode an image as RGB and scale it to at most LONGEST_SIDE_PX; enlarge a tiny image to SHORTEST_SIDE_PX."""
    copy = Image.open(io.BytesIO(image))
    stored_sides = sorted(copy.size)
    copy.draft("RGB", (LONGEST_SIDE_PX, LONGEST_SIDE_PX))  # a JPEG is decoded at 1/2, 1/4 or 1/8 where that suffices
    scale = LONGEST_SIDE_PX / stored_sides[1]
    if scale > 1:
        scale = min(scale, max(1.0, SHORTEST_SIDE_PX / stored_sides[0]))
    factor = scale * stored_sides[1] / max(copy.size)
    size_wh = tuple(max(1, round(side * factor)) for side in copy.size)
    return copy.convert("RGB").resize((size_wh[0], size_wh[1]), Image.Resampling.LANCZOS)


def _encode_jpeg(copy: Image.Image) -> bytes:
    """Encode a JPEG with the first of JPEG_QUALITIES that keeps within MAX_JPEG_BYTES, or else with the last."""
    data = b""
    for quality in JPEG_QUALITIES:
        buffer = io.BytesIO()
        copy.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        data = buffer.getvalue()
        if len(data) <= MAX_JPEG_BYTES:
            break
    return data


def _encode_labels(labels_HW: np.ndarray) -> bytes:
    image = Image.fromarray(labels_HW).convert("P")
    outlines = [tuple(round(0.45 * channel + 0.55 * 255) for channel in colour) for colour in PALETTE_RGB]
    colours = [(0, 0, 0), *PALETTE_RGB, *outlines]
    image.putpalette([channel for colour in colours for channel in colour])
    count = len(PALETTE_RGB)
    alphas = bytes([0] + [round(255 * FILL_ALPHA)] * count + [round(255 * OUTLINE_ALPHA)] * count)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=alphas, optimize=True)
    return buffer.getvalue()


def _shrink(mask_HW: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Shrink a mask to the pixels that it covers by half or more; a thinner mask keeps its best covered pixels."""
    height, width = size_hw
    if mask_HW.shape == size_hw:
        return mask_HW
    method = cv2.INTER_AREA if width < mask_HW.shape[1] else cv2.INTER_LINEAR
    coverage_HW = cv2.resize(mask_HW.astype(np.float32), (width, height), interpolation=method)
    peak = float(coverage_HW.max())
    return coverage_HW >= min(0.5, peak) if peak > 0 else coverage_HW > 0


def _window(mask_HW: np.ndarray, margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    y = slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin)
    x = slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin)
    return y, x


def _colours_around(fill_HW: np.ndarray, inside_HW: np.ndarray) -> np.ndarray:
    """List the indices of the colours under a mask and within three pixels of it."""
    near_HW = cv2.dilate(inside_HW.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(np.bool_)
    found = np.unique(fill_HW[near_HW])
    return found[found > 0].astype(np.int64) - 1


def _pick_colour(neighbours: np.ndarray, used_C: np.ndarray) -> int:
    """Pick the least used colour of those unlike the neighbours' colours; if there is none, the most different."""
    palette_C3 = np.array(PALETTE_RGB, np.float64)
    if not neighbours.size:
        return int(np.argmin(used_C))
    distance_C = np.linalg.norm(palette_C3[:, None] - palette_C3[neighbours][None], axis=2).min(axis=1)
    stands_out_C = distance_C >= min(120.0, distance_C.max())
    return int(np.argmin(np.where(stands_out_C, used_C, used_C.max() + 1)))


def _edge(inside_HW: np.ndarray) -> np.ndarray:
    """Find a mask's inner border: two pixels wide, one pixel for a small mask, none along the image's border."""
    iterations = 2 if min(inside_HW.shape) > 24 else 1
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return inside_HW & ~cv2.erode(inside_HW.astype(np.uint8), cross, iterations=iterations).astype(np.bool_)
