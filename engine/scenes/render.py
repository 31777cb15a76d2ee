"""Rendering: the visible leaf (smallest region) and brightness of each pixel, then the colours of visible leaves.

Objects are not rendered one after the other. Leaves are numbered from back to front, so the visible leaf of a pixel is
the largest number that covers it. Objects of one window size, shape and split are evaluated together, for all scenes
at once, and written by an atomic maximum, whose order does not matter. Colours are computed once per pixel.

Shape suffixes: B scenes, S side in pixels, N objects, W window, G leaves of all scenes, C columns of a style.
"""

from dataclasses import dataclass
from typing import Any

import torch

from engine.scenes.objects import Objects, Shape, Split
from engine.scenes.parts import Window, labels
from engine.scenes.shapes import depth, straighten
from engine.scenes.styles import Style
from engine.scenes.textures import Atlas

SHADE_BITS = 10
"""Number of low bits of a pixel's key that hold brightness (0 to 2 in steps of 1/512); the others hold the leaf."""
SHADE_ONE = 1 << (SHADE_BITS - 1)
"""Brightness of an unshaded pixel, in steps of 1/512."""
WINDOW_FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Sides of the windows in which objects are evaluated, as fractions of the scene's side."""
PIXELS_AT_ONCE_CPU = 1 << 16
"""Number of pixels evaluated together on a CPU, whose cache then holds the temporary planes."""
PIXELS_AT_ONCE_GPU = 1 << 25
"""Number of pixels evaluated together on a GPU; some thirty temporary planes of 4 bytes a pixel then take 4 GiB."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Visible leaf (smallest region) and brightness of every pixel."""

    leaf_BSS: torch.Tensor
    """Visible leaf (smallest region) of each pixel, int64, as an index into the list of all leaves of the batch."""
    shade_BSS: torch.Tensor
    """Brightness of each pixel, float32, with cast shadows; 1 is unshaded."""

    def rows(self, rows: slice) -> "Surface":
        """Select the scenes of a slice."""
        return Surface(leaf_BSS=self.leaf_BSS[rows], shade_BSS=self.shade_BSS[rows])


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Group of objects that are evaluated together."""

    rows: slice
    """Slice of the sorted objects; objects that cast shadows come first in it."""
    casters: int
    """Number of objects that cast shadows."""
    window: int
    """Side of the window that each object is evaluated in, in pixels."""
    shape: Shape
    split: Split


def find_surface(objects: Objects, scenes: int, side: int, atlas: Atlas, device: torch.device) -> Surface:
    """Find the visible leaf (smallest region) and the brightness of every pixel.

    Args:
        objects: table on the host, sorted from back to front in each scene.

    Raises:
        ValueError: The scenes have more leaves than a pixel's key can hold.
    """
    # Number the leaves, group the objects
    leaves_N = 2 * objects.labels_N
    first_leaf_N = leaves_N.cumsum(0) - leaves_N
    if int(leaves_N.sum()) >= 1 << (31 - SHADE_BITS):
        raise ValueError(f"{scenes} scenes have too many leaves for one batch; generate at most {scenes // 2} at once")
    order, groups = _grouped(objects, side, device)
    sorted_objects = objects.rows(order).to(device)
    first_leaf_N = first_leaf_N[order].to(device)

    # Write the largest key of every pixel: leaf and shade
    key = torch.zeros(scenes * side * side, dtype=torch.int32, device=device)
    shadows = []
    for group in groups:
        part = sorted_objects.rows(group.rows)
        first_leaf = first_leaf_N[group.rows].int()
        x0, y0 = _corners(part, group.window, side)
        inside, label, u, v = _evaluate(part, group, x0, y0, atlas)
        shade = _shade(part, inside, u, v)
        covered = torch.where(inside > 0, ((first_leaf[:, None, None] + label) << SHADE_BITS) + shade, 0)
        key.scatter_reduce_(0, _pixels(part, x0, y0, group.window, side).view(-1), covered.view(-1), "amax")
        if group.casters:
            c = slice(0, group.casters)
            shadows.append((part.rows(c), first_leaf[c], x0[c], y0[c], inside[c].half(), group.window))

    # Split the key, and add the cast shadows
    leaf = key >> SHADE_BITS
    light = (key & ((1 << SHADE_BITS) - 1)).float().mul_(1 / SHADE_ONE)
    light.mul_(1 - _shadow(leaf, shadows, side))
    return Surface(leaf_BSS=leaf.long().view(scenes, side, side), shade_BSS=light.view(scenes, side, side))


def _grouped(objects: Objects, side: int, device: torch.device) -> tuple[torch.Tensor, list[_Group]]:
    """Sort objects into groups of one window size, shape and split; return the order of rows and the groups."""
    # Sort by window, shape and split, with casters first
    windows = sorted({max(8, 2 * round(fraction * side / 2)) for fraction in WINDOW_FRACTIONS[:-1]} | {side})
    needed_N = 2 * objects.extent_N + 3
    window_N = torch.bucketize(needed_N, torch.tensor(windows[:-1], dtype=torch.float32))
    plain_N = (objects.shadow_N4[:, 2] == 0).long()
    group_N = (window_N * len(Shape) + objects.shape_N) * len(Split) + objects.split_N
    order = (group_N * 2 + plain_N).argsort(stable=True)
    ids, sizes = group_N[order].unique_consecutive(return_counts=True)
    casts = plain_N[order] == 0

    # Cut each run of equal rows into groups
    groups, start = [], 0
    for group_id, size in zip(ids.tolist(), sizes.tolist(), strict=True):
        window, shape, split = (
            windows[group_id // (len(Shape) * len(Split))], group_id // len(Split) % len(Shape), group_id % len(Split),
        )  # fmt: skip
        at_once = max(1, _pixels_at_once(device) // window**2)
        for first in range(start, start + size, at_once):
            rows = slice(first, min(first + at_once, start + size))
            casters = int(casts[rows].sum())
            groups.append(_Group(rows=rows, casters=casters, window=window, shape=Shape(shape), split=Split(split)))
        start += size
    return order, groups


def _pixels_at_once(device: torch.device) -> int:
    return PIXELS_AT_ONCE_CPU if device.type == "cpu" else PIXELS_AT_ONCE_GPU


def _corners(objects: Objects, window: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute x and y of the top left pixel of each object's window, int64; the window is moved into the scene."""
    corner_N2 = (objects.centre_N2 - window / 2).round().clamp(0, side - window).long()
    return corner_N2[:, 0], corner_N2[:, 1]


def _pixels(objects: Objects, x0: torch.Tensor, y0: torch.Tensor, window: int, side: int) -> torch.Tensor:
    """Compute the index of each window pixel in the list of all pixels of the batch, int64 [N, W, W]."""
    step = torch.arange(window, device=x0.device)
    row = (objects.scene_N * side + y0)[:, None] + step
    return (row * side + x0[:, None])[:, :, None] + step


def _evaluate(
    objects: Objects, group: _Group, x0: torch.Tensor, y0: torch.Tensor, atlas: Atlas
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Evaluate depth, label and local coordinates u, v of each window pixel, each [N, W, W]."""
    step = torch.arange(group.window, device=x0.device) + 0.5
    x = (x0[:, None] + step - objects.centre_N2[:, :1]) / objects.radius_N[:, None]
    y = (y0[:, None] + step - objects.centre_N2[:, 1:]) / objects.radius_N[:, None]
    cos, sin = objects.angle_N.cos()[:, None, None], objects.angle_N.sin()[:, None, None]
    u = x[:, None, :] * cos + y[:, :, None] * sin
    v = y[:, :, None] * cos - x[:, None, :] * sin
    if group.shape is Shape.QUAD:
        u, v = straighten(objects, u, v)
    inside, chain_label = depth(objects, group.shape, u, v)
    seen = Window(u=u, v=v, depth=inside, chain_label=chain_label)
    return inside, labels(objects, group.shape, group.split, seen, atlas), u, v


def _shade(objects: Objects, inside: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Compute brightness in units of 1 / SHADE_ONE, int32, from a slope of light, a rounded rim and a contour."""
    slope_u, slope_v, rim, width, contour, contour_px = objects.light_N6[:, :, None, None].unbind(1)
    rounded = (inside / width).clamp_(0, 1).sqrt_().sub_(0.8)
    bright = torch.addcmul(1 + slope_u * u, slope_v, v).addcmul_(rim, rounded)
    bright = torch.where(inside * objects.radius_N[:, None, None] < contour_px, bright * contour, bright)
    return bright.mul_(SHADE_ONE).clamp_(40, 2 * SHADE_ONE - 1).int()


def _shadow(leaf: torch.Tensor, shadows: list[Any], side: int) -> torch.Tensor:
    """Compute the darkness of every pixel in [0, 1]: the darkest shadow of the objects in front of the pixel."""
    dark = torch.zeros(leaf.shape, device=leaf.device)
    for part, first_leaf, x0, y0, inside, window in shadows:
        dx, dy, strength, soft = part.shadow_N4.unbind(1)
        step = torch.arange(window, device=leaf.device)
        column, row = (x0 + dx.long())[:, None] + step, (y0 + dy.long())[:, None] + step
        within = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None, :]
        row_start = (part.scene_N[:, None] * side + row.clamp(0, side - 1)) * side
        pixel = (row_start[:, :, None] + column.clamp(0, side - 1)[:, None, :]).view(-1)
        sharpness = (part.radius_N / soft)[:, None, None]
        shade = torch.sigmoid(inside.float() * sharpness * 2).mul_(strength[:, None, None])
        below = leaf.index_select(0, pixel).view(within.shape) < first_leaf[:, None, None]
        dark.scatter_reduce_(0, pixel, torch.where(below & within & (shade > 0.02), shade, 0.0).view(-1), "amax")
    return dark


def scene_slices(scenes: int, side: int, device: torch.device) -> list[slice]:
    """Divide `scenes` scenes into slices; the scenes of a slice are coloured at the same time."""
    at_once = max(1, _pixels_at_once(device) // side**2)
    return [slice(first, min(first + at_once, scenes)) for first in range(0, scenes, at_once)]


def paint(surface: Surface, styles_GC: torch.Tensor, atlas: Atlas) -> torch.Tensor:
    """Colour the visible leaves (smallest regions); return float32 [B, 3, S, S], linear, about 0 to 1."""
    leaf_BSS = surface.leaf_BSS
    columns_CG = styles_GC.t().contiguous()
    side = leaf_BSS.shape[1]
    flat = leaf_BSS.reshape(-1)

    def column(which: Style) -> torch.Tensor:
        return columns_CG[which].index_select(0, flat).view_as(leaf_BSS)

    # Texture coordinates, in perspective where tilted
    step = (torch.arange(side, device=leaf_BSS.device) + 0.5) / side - 0.5
    x, y = step[None, None, :], step[None, :, None]
    nearness = (1 - 2 * (column(Style.TILT_X) * x + column(Style.TILT_Y) * y)).clamp_min_(0.1)
    u, v = x * side / nearness, y * side / nearness

    # Mix a fine texture, a smooth one and a gradient
    turn_x, turn_y = column(Style.TURN_X), column(Style.TURN_Y)
    shift_u, shift_v = column(Style.SHIFT_U), column(Style.SHIFT_V)
    fine = atlas.sample(column(Style.TEXTURE), u * turn_x - v * turn_y + shift_u, u * turn_y + v * turn_x + shift_v)
    fine.mul_(column(Style.STRENGTH)).mul_((2.2 / nearness.square()).clamp_max_(1))
    scale = column(Style.SMOOTH_SCALE)
    smooth = atlas.sample(column(Style.SMOOTH), u * scale + shift_v, v * scale + shift_u)
    mix = fine.addcmul_(smooth, column(Style.SMOOTH_STRENGTH)).add_(0.5)
    mix.addcmul_(column(Style.GRADIENT_X), x.expand_as(mix)).addcmul_(column(Style.GRADIENT_Y), y.expand_as(mix))
    mix.clamp_(-0.4, 1.4)

    # Interpolate between the two colours of the leaf
    channels = [
        torch.lerp(column(Style(Style.DARK_R + c)), column(Style(Style.LIGHT_R + c)), mix) * surface.shade_BSS
        for c in range(3)
    ]
    return torch.stack(channels, 1)
