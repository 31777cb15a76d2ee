"""Parts: the label of each pixel of an object, and random ways to divide objects into parts.

The label of a pixel is 2 * part + half; `half` is 1 on one side of a part that is divided in two.

Shape suffixes: N objects, W side of their window in pixels, F the five scalar fields, K sites.
"""

import math
from dataclasses import dataclass

import torch

from engine.scenes.objects import NUM_CELLS, NUM_FIELDS, NUM_SITES, Alike, Objects, Shape, Split
from engine.scenes.random_draws import RandomDraws
from engine.scenes.textures import NUM_SMOOTH, Atlas

MAX_LABELS = 62
"""Largest number of parts of one object; `Objects.subsplit_N` has one bit for each part, in 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Values of each pixel in the windows of N objects, [N, W, W], from which objects are divided into parts."""

    u: torch.Tensor
    """Local coordinate u: pixels from the centre along the object's own axis, divided by the radius."""
    v: torch.Tensor
    """Local coordinate v: pixels from the centre across the object's own axis, divided by the radius."""
    depth: torch.Tensor
    """Depth inside the object's border, in local units (the object's radius is 1)."""
    chain_label: torch.Tensor | None
    """Part of the capsule at each pixel, int32, for objects of shape CHAIN; None for other shapes."""


def labels(objects: Objects, shape: Shape, split: Split, window: Window, atlas: Atlas) -> torch.Tensor:
    """Compute the label 2 * part + half of every pixel, int32 [N, W, W], for objects of one shape and one split."""
    if split is Split.NONE:
        return torch.zeros_like(window.u, dtype=torch.int32) if window.chain_label is None else window.chain_label * 2
    u, v = _bent(objects, shape, window, atlas)
    if split is Split.BANDS:
        part = _bands(objects, u, v, window.depth)
    elif split is Split.SITES:
        part = _sites(objects, u, v)
    elif split is Split.CELLS:
        part = _cells(objects, u, v)
    else:
        part = _noise_cuts(objects, u, v, atlas)
    if window.chain_label is not None:
        part = part + window.chain_label
    part = torch.minimum(part, (objects.labels_N.int() - 1)[:, None, None])
    return part * 2 + _second_half(objects, part, u, v)


def _bent(objects: Objects, shape: Shape, window: Window, atlas: Atlas) -> tuple[torch.Tensor, torch.Tensor]:
    """Bend the local coordinates by sine waves or, for objects that fill the scene, by smooth noise."""
    size, frequency, phase_u, phase_v = objects.warp_N4[:, :, None, None].unbind(1)
    if shape is Shape.EVERYTHING:
        layer = objects.noise_N6[:, 0, None, None].long()
        shift = size * atlas.sample(layer, window.u * frequency + phase_u, window.v * frequency + phase_v)
        cross = size * atlas.sample(layer, window.v * frequency - phase_v, window.u * frequency - phase_u)
        return window.u + shift, window.v + cross
    bent_u = window.u + size * torch.sin(frequency * window.v + phase_u)
    return bent_u, window.v + size * torch.sin(frequency * bent_u + phase_v)


def _bands(objects: Objects, u: torch.Tensor, v: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Number the parts between whole numbers of two coordinates: stripes, rings, sectors, rims, grids, framed grids."""
    fields = (u, v, torch.hypot(u, v), depth, torch.atan2(v, u) * (1 / (2 * math.pi)))
    cells, framed = [], torch.ones_like(u, dtype=torch.bool)
    for axis in range(2):
        offset, count, margin = objects.band_N8[:, 3 * axis : 3 * axis + 3, None, None].unbind(1)
        coordinate = offset.expand_as(u)
        for f, field in enumerate(fields):
            coordinate = torch.addcmul(coordinate, field, objects.bands_N2F[:, axis, f, None, None])
        cell = coordinate.floor()
        within = (coordinate - cell - 0.5).abs() <= 0.5 - margin
        inside = within & ((margin == 0) | ((cell >= 0) & (cell < count)))
        framed &= inside
        cells.append(torch.minimum(cell.clamp_min_(0), count - 1))
    has_frame = ((objects.band_N8[:, 2] + objects.band_N8[:, 5]) > 0)[:, None, None]
    number = torch.addcmul(cells[0], cells[1], objects.band_N8[:, 1, None, None])
    return torch.where(framed, number + has_frame, torch.zeros_like(number)).int()


def _sites(objects: Objects, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Number the Voronoi cells of weighted sites; if there is a floor, part 0 is where no site exceeds the floor."""
    has_ground = (objects.site_floor_N > -1e4).int()[:, None, None]
    best = objects.site_floor_N[:, None, None].expand_as(u)
    label = torch.zeros_like(u, dtype=torch.int32)
    for k in range(NUM_SITES):
        x, y, weight = objects.sites_NK3[:, k, :, None, None].unbind(1)
        score = weight - (u - x).square() - (v - y).square()
        label = torch.where(score > best, k + has_ground, label)
        best = torch.maximum(best, score)
    return label


def _cells(objects: Objects, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Number Voronoi cells with one point per square of a grid, so that only nine points matter for a pixel."""
    # Find the square of each pixel
    columns, rows, gap = objects.cell_N3[:, :, None, None].unbind(1)
    u, v = (u + 1) * 0.5 * columns, (v + 1) * 0.5 * rows
    column, row = u.floor().clamp_min_(0), v.floor().clamp_min_(0)
    column, row = torch.minimum(column, columns - 1), torch.minimum(row, rows - 1)
    first = (torch.arange(len(objects), device=u.device) * NUM_CELLS)[:, None, None]
    x_flat, y_flat = objects.cells_NJ2.reshape(-1, 2).t().contiguous()

    # Find the nearest and second nearest point
    nearest, second, label = torch.full_like(u, 99.0), torch.full_like(u, 99.0), torch.zeros_like(u)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            c, r = column + dx, row + dy
            cell = r * columns + c
            index = (first + cell.clamp(0, NUM_CELLS - 1).long()).view(-1)
            x, y = x_flat.index_select(0, index).view_as(u), y_flat.index_select(0, index).view_as(u)
            away = torch.hypot(c + x - u, r + y - v)
            away = torch.where((c >= 0) & (c < columns) & (r >= 0) & (r < rows), away, 99.0)
            second = torch.minimum(second, torch.maximum(nearest, away))
            label = torch.where(away < nearest, cell, label)
            nearest = torch.minimum(nearest, away)
    return torch.where(second - nearest < gap, 0.0, label + (gap > 0)).int()


def _noise_cuts(objects: Objects, u: torch.Tensor, v: torch.Tensor, atlas: Atlas) -> torch.Tensor:
    """Number the parts below, between and above one or two levels of smooth noise."""
    layer, scale, shift_u, shift_v, low, high = objects.noise_N6[:, :, None, None].unbind(1)
    value = atlas.sample(layer.long(), u * scale + shift_u, v * scale + shift_v)
    return (value > low).int() + (value > high).int()


def _second_half(objects: Objects, part: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Mark alternate stripes of each part that is divided in two with 1, and all other pixels with 0, int32."""
    x, y, phase, bend, frequency, fraction = objects.subcut_N6[:, :, None, None].unbind(1)
    along = u * x + v * y + phase
    across = torch.sin((v * x - u * y) * frequency).mul_(bend)
    position = along.add_(across).add_(part * 0.37)
    side = (position - position.floor()) < fraction
    cut = (objects.subsplit_N[:, None, None] >> part) & 1
    return side.int() * cut.int()


def with_random_parts(draws: RandomDraws, objects: Objects, probability_N: torch.Tensor) -> Objects:
    """Divide each object into random parts with probability `probability_N`.

    One in four of these parts is then cut in two.
    """
    # Draw the settings of every split
    n = len(objects)
    kind = torch.where(draws.chance(probability_N, n), draws.choose(_KIND_WEIGHTS, n) + 1, 0)
    bands, band, band_labels = _random_bands(draws, kind, n)
    sites, floor, site_labels = _random_sites(draws, kind == _SPOTS, n)
    noise, noise_labels = _random_noise(draws, n)
    cell, cells, cell_labels = random_cells(draws, draws.integers(2, 6, n), draws.integers(2, 6, n))
    is_sites, is_noise, is_cells = (kind == _VORONOI) | (kind == _SPOTS), kind == _NOISE, kind == _CELLS
    bend = torch.where(draws.chance(0.5, n), draws.uniform(0.02, 0.2, n), 0.0)
    warp = torch.stack([bend, draws.uniform(1.5, 7, n), draws.uniform(0, 6.3, n), draws.uniform(0, 6.3, n)], 1)

    # Take those of the chosen split
    count = torch.where(is_sites, site_labels, torch.where(is_noise, noise_labels, band_labels))
    count = torch.where(is_cells, cell_labels, count)
    split = torch.where(is_sites, int(Split.SITES), torch.where(is_noise, int(Split.NOISE), int(Split.BANDS)))
    split = torch.where(is_cells, int(Split.CELLS), torch.where(kind == 0, int(Split.NONE), split))
    objects = objects.with_fields(
        split_N=split, bands_N2F=bands, band_N8=band, sites_NK3=sites, site_floor_N=floor, cell_N3=cell,
        cells_NJ2=cells, noise_N6=noise, warp_N4=warp, labels_N=count, alike_N=_alike_labels(draws, kind, cell),
    )  # fmt: skip
    return with_second_cuts(draws, objects, torch.where(count > 1, 0.25, 0.0))


def with_second_cuts(draws: RandomDraws, objects: Objects, probability_N: torch.Tensor) -> Objects:
    """Cut each part of each object in two with the object's probability in `probability_N`."""
    n = len(objects)
    bits = torch.arange(MAX_LABELS)
    chosen = draws.chance(probability_N[:, None], n, MAX_LABELS) & (bits < objects.labels_N[:, None])
    turn, rate = draws.uniform(0, 2 * math.pi, n), draws.log_uniform(0.25, 2.5, n)
    bend = torch.where(draws.chance(0.5, n), draws.uniform(0.02, 0.25, n), 0.0)
    cut = [turn.cos() * rate, turn.sin() * rate, draws.uniform(0, 1, n), bend]
    subcut = torch.stack([*cut, draws.uniform(2, 7, n), draws.uniform(0.3, 0.7, n)], 1)
    return objects.with_fields(subsplit_N=(chosen.long() << bits).sum(1), subcut_N6=subcut)


def random_cells(
    draws: RandomDraws, columns_N: torch.Tensor, rows_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw random values for the fields `cell_N3`, `cells_NJ2` and `labels_N` of `Objects`.

    Two in five objects have gaps between cells.
    """
    n = len(columns_N)
    gap = draws.uniform(0.06, 0.3, n) * draws.chance(0.4, n)
    points = 0.5 + (draws.uniform(0, 1, n, NUM_CELLS, 2) - 0.5) * draws.uniform(0.1, 1, n, 1, 1)
    return torch.stack([columns_N, rows_N, gap], 1).float(), points, columns_N * rows_N + (gap > 0)


_STRIPES, _RINGS, _RIM, _SECTORS, _GRID, _FRAMED, _VORONOI, _SPOTS, _NOISE, _CELLS = range(1, 11)
"""Kinds of random divisions into parts; 0 stands for no division."""
_KIND_WEIGHTS = (0.2, 0.08, 0.12, 0.06, 0.06, 0.08, 0.16, 0.12, 0.1, 0.04)
"""Probabilities of the kinds of random division into parts, from `_STRIPES` to `_CELLS`."""


def _alike_labels(draws: RandomDraws, kind: torch.Tensor, cell_N3: torch.Tensor) -> torch.Tensor:
    """Draw random `alike_N`: two in three framed grids or spots look alike, half of stripes or rings alternate."""
    apart = (kind == _FRAMED) | (kind == _SPOTS) | ((kind == _CELLS) & (cell_N3[:, 2] > 0))
    striped = (kind == _STRIPES) | (kind == _RINGS)
    alike = torch.where(apart & draws.chance(0.67, len(kind)), int(Alike.BUT_GROUND), int(Alike.NOT))
    return torch.where(striped & draws.chance(0.5, len(kind)), int(Alike.ALTERNATE), alike)


def _random_bands(draws: RandomDraws, kind: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw random `bands_N2F`, `band_N8` and numbers of labels, for the kinds that divide coordinates into bands."""
    # Draw how many bands
    bands, band = torch.zeros(n, 2, NUM_FIELDS), torch.zeros(n, 8)
    count = 2 + (draws.log_uniform(0.6, 4.4, n) - 0.5).round()
    second = 1 + draws.integers(1, 4, n).float()
    grid = (kind == _GRID) | (kind == _FRAMED)
    linear = (kind == _STRIPES) | grid

    # Weigh the fields of both coordinates
    turn = torch.where(grid, 0.0, draws.uniform(0, math.pi, n))
    scale = torch.where(grid, 0.6, draws.uniform(0.4, 0.9, n)) * count
    bands[:, 0, 0] = torch.where(linear, turn.cos() * scale, 0.0)
    bands[:, 0, 1] = torch.where(linear, turn.sin() * scale, 0.0)
    band[:, 0] = torch.where(linear, count / 2, 0.0)
    bands[:, 1, 1] = torch.where(grid, 0.6 * second, 0.0)
    band[:, 3] = torch.where(grid, second / 2, 0.0)
    bands[:, 0, 2] = torch.where(kind == _RINGS, count * 1.05, 0.0)
    width = draws.uniform(0.08, 0.4, n)
    bands[:, 0, 3] = torch.where(kind == _RIM, 1 / width, 0.0)
    bands[:, 0, 4] = torch.where(kind == _SECTORS, count, 0.0)
    band[:, 0] = torch.where(kind == _SECTORS, count / 2, band[:, 0])

    # Set counts and margins
    band[:, 1] = torch.where(kind == 0, 1.0, torch.where(kind == _RIM, 2.0, count))
    band[:, 4] = torch.where(grid, second, 1.0)
    band[:, 2] = torch.where(kind == _FRAMED, draws.uniform(0.05, 0.3, n), 0.0)
    band[:, 5] = torch.where(kind == _FRAMED, draws.uniform(0.05, 0.3, n), 0.0)
    return bands, band, (band[:, 1] * band[:, 4]).long() + (kind == _FRAMED).long()


def _random_sites(draws: RandomDraws, spots: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw random `sites_NK3`, `site_floor_N` and numbers of labels."""
    count = draws.integers(2, 6, n)
    place = draws.uniform(-0.75, 0.75, n, NUM_SITES, 2)
    weight = torch.where(spots[:, None], draws.uniform(0.08, 0.4, n, NUM_SITES).square(), 0.0)
    weight = weight.masked_fill(torch.arange(NUM_SITES) >= count[:, None], -1e6)
    floor = torch.where(spots, 0.0, -1e5)
    return torch.cat([place, weight[:, :, None]], 2), floor, count + spots.long()


def _random_noise(draws: RandomDraws, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw random `noise_N6` and numbers of labels; one in three objects has a second level."""
    layer, scale = draws.integers(0, NUM_SMOOTH, n).float(), draws.uniform(15, 70, n)
    low = draws.uniform(-0.25, 0.25, n)
    twice = draws.chance(0.33, n)
    high = torch.where(twice, low + draws.uniform(0.25, 0.5, n), 9.0)
    shift = draws.uniform(0, 256, 2, n)
    return torch.stack([layer, scale, shift[0], shift[1], low, high], 1), 2 + twice.long()
