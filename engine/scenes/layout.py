"""Layout: the objects of each scene and their places, chosen on the host for all scenes of a batch at once.

Shape suffixes: B scenes, N objects.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import torch

from engine.scenes.lighting import with_shading, with_shadows
from engine.scenes.objects import Alike, Objects, Shape, Split, join, plain_objects
from engine.scenes.parts import random_cells, with_second_cuts
from engine.scenes.random_draws import RandomDraws
from engine.scenes.random_objects import parts_fraction, quads, random_objects
from engine.scenes.shapes import cell_outlines, glyphs, wires
from engine.scenes.textures import NUM_SMOOTH

MIN_RADIUS = 0.015
"""Smallest radius of a scattered object, as a fraction of the side."""
MAX_RADIUS = 0.5
"""Largest radius of a scattered object, as a fraction of the side."""


class Kind(IntEnum):
    """Kind of a scene, by its main content."""

    LEAVES = 0
    INSTANCES = 1
    STREET = 2
    PARTITION = 3


KIND_WEIGHTS = (0.58, 0.22, 0.1, 0.1)
"""Probability of each kind of scene, in the order of `Kind`."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Objects of a batch of scenes, and the properties of each scene that the camera needs."""

    objects: Objects
    """Objects, sorted by scene and from back to front."""
    microscopy_B: torch.Tensor
    """True for scenes that look like microscopy (images of cells, mostly grey), bool."""


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """Objects with the heights that order them from back to front."""

    objects: Objects
    height_N: torch.Tensor
    """Height of each object; higher objects are further in front."""


def plan_scenes(draws: RandomDraws, scenes: int, side: int) -> Layout:
    """Draw the random objects of `scenes` scenes of side x side pixels."""
    # Draw each population
    kind_B = draws.choose(KIND_WEIGHTS, scenes)
    microscopy_B = (kind_B == Kind.INSTANCES) & draws.chance(0.4, scenes)
    populations = [
        _backgrounds(draws, kind_B, microscopy_B, side),
        _instances(draws, kind_B, microscopy_B, side),
        _buildings(draws, kind_B, side),
        _scattered(draws, kind_B, microscopy_B, side),
        _thin(draws, kind_B, side),
        _words(draws, kind_B, side),
    ]

    # Join and light them
    objects = join(_with_distinct_numbers([p.objects for p in populations]))
    height_N = torch.cat([p.height_N for p in populations])
    objects = with_shadows(draws, with_shading(draws, objects), microscopy_B)

    # Sort by scene, from back to front
    front_to_back = height_N.argsort(stable=True)
    order = front_to_back[objects.scene_N[front_to_back].argsort(stable=True)]
    return Layout(objects=objects.rows(order), microscopy_B=microscopy_B)


def _with_distinct_numbers(tables: list[Objects]) -> list[Objects]:
    """Shift the numbers of kin (objects that look alike) and wholes so that no two tables share a number."""
    shifted, kin, whole = [], 0, 0
    for table in (t for t in tables if len(t)):
        shifted.append(table.with_fields(kin_N=table.kin_N + kin, whole_N=table.whole_N + whole))
        kin, whole = kin + int(table.kin_N.max()) + 1, whole + int(table.whole_N.max()) + 1
    return shifted


def _scene_rows(count_B: torch.Tensor) -> torch.Tensor:
    """Repeat the index of each scene as often as the scene has objects."""
    return torch.repeat_interleave(torch.arange(len(count_B)), count_B)


def _backgrounds(draws: RandomDraws, kind_B: torch.Tensor, microscopy_B: torch.Tensor, side: int) -> _Placed:
    """Draw a background for each scene: a plain surface, bands at a horizon, bent Voronoi cells or a grid of cells."""
    # Choose the form of each background
    n = len(kind_B)
    single, horizon, voronoi, cells = range(4)
    weights = {
        Kind.LEAVES: (0.3, 0.27, 0.38, 0.05),
        Kind.INSTANCES: (0.72, 0.14, 0.14, 0.0),
        Kind.STREET: (0.1, 0.7, 0.2, 0.0),
        Kind.PARTITION: (0.0, 0.2, 0.45, 0.35),
    }
    options = torch.stack([draws.choose(weights[kind], n) for kind in Kind])
    form = torch.where(microscopy_B, single, options[kind_B, torch.arange(n)])

    # Draw the bands, sites, warp and cells of every background, whatever its form
    bands = torch.where(form == horizon, draws.integers(2, 5, n), 1)
    sites = (draws.log_uniform(3, 12.9, n)).floor().long()
    objects = plain_objects(torch.arange(n), Shape.EVERYTHING)
    bands_N2F, band_N8 = objects.bands_N2F, objects.band_N8
    bands_N2F[:, 0, 1] = bands / 2 * draws.uniform(0.6, 1.6, n)
    band_N8[:, 0] = bands / 2 + draws.uniform(-0.4, 0.4, n)
    band_N8[:, 1] = bands.float()
    place = draws.uniform(-1.05, 1.05, n, objects.sites_NK3.shape[1], 2)
    weight = draws.normal(n, place.shape[1]) * 0.08
    weight = weight.masked_fill(torch.arange(place.shape[1]) >= sites[:, None], -1e6)
    bend = torch.where(draws.chance(0.25, n), 0.0, draws.log_uniform(0.03, 0.5, n))
    warp = torch.stack([bend, draws.log_uniform(12, 90, n), draws.uniform(0, 256, n), draws.uniform(0, 256, n)], 1)
    noise = torch.zeros(n, 6)
    noise[:, 0] = draws.integers(0, NUM_SMOOTH, n).float()
    cell_N3, cells_NJ2, cell_labels = random_cells(draws, draws.integers(2, 9, n), draws.integers(2, 8, n))

    # Take the split and labels of the chosen form
    span_N = torch.where(draws.chance(0.3, n) & (form != voronoi), draws.integers(2, 4, n), 1)
    splits = torch.tensor([Split.NONE, Split.BANDS, Split.SITES, Split.CELLS])
    labels = torch.stack([torch.ones_like(bands), bands, sites, cell_labels])
    objects = objects.with_fields(
        split_N=splits[form],
        centre_N2=torch.full((n, 2), side / 2),
        radius_N=torch.full((n,), side / 2),
        extent_N=torch.full((n,), float(side)),
        angle_N=draws.normal(n) * 0.12,
        sites_NK3=torch.cat([place, weight[:, :, None]], 2),
        warp_N4=warp,
        noise_N6=noise,
        cell_N3=cell_N3,
        cells_NJ2=cells_NJ2,
        labels_N=labels[form, torch.arange(n)],
        region_span_N=span_N,
    )
    objects = with_second_cuts(draws, objects, torch.where(form == single, 0.0, torch.where(form == cells, 0.05, 0.12)))
    return _Placed(objects=objects, height_N=torch.full((n,), -1e9))


def _scattered(draws: RandomDraws, kind_B: torch.Tensor, microscopy_B: torch.Tensor, side: int) -> _Placed:
    """Draw scattered objects after the dead leaves model: radii have density r^-3, large ones mostly lie behind."""
    # Count the objects of each scene
    scenes = len(kind_B)
    many = draws.log_uniform(4, 50, scenes)
    few = draws.uniform(0, 8, scenes) * draws.chance(0.6, scenes)
    count_B = torch.where(kind_B == Kind.LEAVES, many, torch.where(microscopy_B, 0.0, few)).round().long()
    scene_N = _scene_rows(count_B)
    n = len(scene_N)

    # Draw radius, height and place
    smallest_N = draws.log_uniform(MIN_RADIUS, 0.2, scenes)[scene_N]
    span = 1 - (smallest_N / MAX_RADIUS).square()
    fraction_N = smallest_N / (1 - draws.uniform(0, 1, n) * span).sqrt()
    height_N = -fraction_N.log() + 0.7 * draws.normal(n)
    centre_N2 = draws.uniform(-0.04, 1.04, n, 2) * side

    # Attach some objects to the side of an earlier one, as one whole
    leader_N = _leaders(draws, scene_N)
    attached = leader_N != torch.arange(n)
    fraction_N = torch.where(attached, fraction_N[leader_N] * draws.uniform(0.3, 0.8, n), fraction_N)
    fraction_N = fraction_N.clamp_min(MIN_RADIUS)
    turn, reach = draws.uniform(0, 2 * math.pi, n), fraction_N[leader_N] * side * draws.uniform(0.5, 1.0, n)
    beside_N2 = centre_N2[leader_N] + torch.stack([turn.cos(), turn.sin()], 1) * reach[:, None]
    centre_N2 = torch.where(attached[:, None], beside_N2, centre_N2)
    height_N = torch.where(attached, height_N[leader_N] + 1e-3 * draws.normal(n), height_N)

    # Draw the objects
    objects = random_objects(draws, scene_N, centre_N2, fraction_N * side, 0.55 * parts_fraction(fraction_N))
    return _Placed(objects=objects.with_fields(whole_N=leader_N), height_N=height_N)


def _leaders(draws: RandomDraws, scene_N: torch.Tensor) -> torch.Tensor:
    """Draw the row to which each object is attached, int64: mostly its own row, else an earlier row of its scene."""
    row_N = torch.arange(len(scene_N))
    leads = ~draws.chance(0.17, len(scene_N))
    leads[1:] |= scene_N[1:] != scene_N[:-1]
    leads[:1] = True
    return torch.where(leads, row_N, 0).cummax(0).values


def _buildings(draws: RandomDraws, kind_B: torch.Tensor, side: int) -> _Placed:
    """Draw random buildings: large upright quads with a grid of windows, in perspective."""
    # Count the buildings of each scene
    scenes = len(kind_B)
    count_B = torch.where(kind_B == Kind.STREET, draws.integers(1, 4, scenes), draws.chance(0.12, scenes).long())
    count_B = torch.where(kind_B == Kind.INSTANCES, 0, count_B)
    scene_N = _scene_rows(count_B)
    n = len(scene_N)

    # Draw their size and windows
    radius_N = draws.uniform(0.22, 0.6, n) * side
    columns, rows = draws.integers(2, 7, n), draws.integers(2, 6, n)
    objects = plain_objects(scene_N, Shape.QUAD)
    quad_N5 = quads(draws, n)
    quad_N5[:, 2] = 0
    bands_N2F, band_N8 = objects.bands_N2F, objects.band_N8
    bands_N2F[:, 0, 0], bands_N2F[:, 1, 1] = columns / (2 * quad_N5[:, 0]), rows / (2 * quad_N5[:, 1])
    band_N8[:, 0], band_N8[:, 1], band_N8[:, 2] = columns / 2, columns, draws.uniform(0.12, 0.34, n)
    band_N8[:, 3], band_N8[:, 4], band_N8[:, 5] = rows / 2, rows, draws.uniform(0.12, 0.34, n)

    # Fill the table
    objects = objects.with_fields(
        centre_N2=torch.stack([draws.uniform(0, 1, n), draws.uniform(0.25, 0.85, n)], 1) * side,
        radius_N=radius_N,
        extent_N=radius_N * 1.35 + 1,
        angle_N=draws.normal(n) * 0.04,
        split_N=torch.full((n,), int(Split.BANDS)),
        quad_N5=quad_N5,
        bands_N2F=bands_N2F,
        band_N8=band_N8,
        labels_N=1 + columns * rows,
        alike_N=torch.where(draws.chance(0.75, n), int(Alike.BUT_GROUND), int(Alike.NOT)),
    )
    objects = with_second_cuts(draws, objects, torch.where(draws.chance(0.25, n), 0.5, 0.0))
    return _Placed(objects=objects, height_N=-(radius_N / side).log() + 0.3 * draws.normal(n))


def _thin(draws: RandomDraws, kind_B: torch.Tensor, side: int) -> _Placed:
    """Draw random long wires and branches, at any height between back and front."""
    scenes = len(kind_B)
    count_B = torch.tensor([0, 0, 0, 1, 3])[draws.integers(0, 5, scenes)]
    scene_N = _scene_rows(torch.where(kind_B == Kind.INSTANCES, count_B // 3, count_B))
    n = len(scene_N)
    radius_N = draws.uniform(0.2, 0.75, n) * side
    objects = plain_objects(scene_N, Shape.CHAIN).with_fields(
        centre_N2=draws.uniform(0, 1, n, 2) * side,
        radius_N=radius_N,
        extent_N=radius_N * 1.02 + 1,
        angle_N=draws.uniform(0, 2 * math.pi, n),
        capsules_NM6=wires(draws, n),
    )
    return _Placed(objects=objects, height_N=draws.uniform(1, 4, n))


def _words(draws: RandomDraws, kind_B: torch.Tensor, side: int) -> _Placed:
    """Draw random rows of letter-like signs; a row is a whole, and its signs are parts of this whole."""
    # Choose the scenes with a word, and its letters
    scenes = len(kind_B)
    chosen = ((kind_B == Kind.LEAVES) | (kind_B == Kind.STREET)) & draws.chance(0.15, scenes)
    scene_N = _scene_rows(torch.where(chosen, draws.integers(2, 8, scenes), 0))
    n = len(scene_N)
    leader_N = torch.searchsorted(scene_N, scene_N)
    place_N = (torch.arange(n) - leader_N)[:, None]

    # Place the letters along a line
    angle_N = 0.15 * draws.normal(scenes)[scene_N]
    radius_N = draws.log_uniform(0.025, 0.12, scenes)[scene_N] * side
    start_N2 = draws.uniform(0.02, 0.6, scenes, 2)[scene_N] * side
    advance_N2 = torch.stack([angle_N.cos(), angle_N.sin()], 1) * (1.45 * radius_N)[:, None]
    objects = plain_objects(scene_N, Shape.CHAIN).with_fields(
        centre_N2=start_N2 + place_N * advance_N2,
        radius_N=radius_N,
        extent_N=radius_N * 1.1 + 1,
        angle_N=angle_N,
        capsules_NM6=glyphs(draws, n),
        whole_N=leader_N,
        kin_N=leader_N,
    )
    return _Placed(objects=objects, height_N=draws.uniform(1, 5, scenes)[scene_N])


def _instances(draws: RandomDraws, kind_B: torch.Tensor, microscopy_B: torch.Tensor, side: int) -> _Placed:
    """Draw many objects of one look in a grid, in touching clusters or anywhere; in microscopy they are cells."""
    # Count the instances of each scene
    scenes = len(kind_B)
    many = draws.log_uniform(4, 80, scenes)
    extra = torch.where((kind_B == Kind.LEAVES) & draws.chance(0.12, scenes), draws.log_uniform(5, 30, scenes), 0.0)
    wanted_B = torch.where(kind_B == Kind.INSTANCES, many, extra).ceil().long()
    across_B = wanted_B.float().sqrt().ceil().clamp_min(1)
    scene_N = _scene_rows((across_B.square() * (wanted_B > 0)).long())
    n = len(scene_N)
    first_B = torch.zeros(scenes, dtype=torch.int64)
    first_B[1:] = torch.bincount(scene_N, minlength=scenes).cumsum(0)[:-1]

    # Place them on a grid and draw their radii
    centre_N2, cell_N = _on_a_grid(draws, scene_N, torch.arange(n) - first_B[scene_N], across_B)
    fill_B, spread_B = draws.uniform(0.28, 0.62, scenes), draws.uniform(0.02, 0.3, scenes)
    fraction_N = cell_N * fill_B[scene_N] * (draws.normal(n) * spread_B[scene_N]).exp()
    fraction_N = fraction_N.clamp_min(MIN_RADIUS)

    # Draw the objects, make them alike, and thin them out
    objects = random_objects(draws, scene_N, centre_N2 * side, fraction_N * side, 0.4 * parts_fraction(fraction_N))
    objects = _alike(draws, objects, first_B, microscopy_B)
    objects = objects.rows(_in_patches(draws, scene_N, centre_N2, scenes))
    return _Placed(objects=objects, height_N=draws.uniform(-2, -1, len(objects)))


def _on_a_grid(
    draws: RandomDraws, scene_N: torch.Tensor, index_N: torch.Tensor, across_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw centres [N, 2] on a brick-like grid, jittered or not, and grid steps [N], as fractions of the side."""
    scenes, n = len(across_B), len(scene_N)
    across_N = across_B[scene_N]
    row_N, column_N = (index_N / across_N).floor(), index_N % across_N
    area_B = torch.where(draws.chance(0.6, scenes), 1.0, draws.uniform(0.4, 0.9, scenes))
    jitter_B = draws.choose((0.3, 0.4, 0.3), scenes) * 0.22
    offset_B2 = draws.uniform(0, 1, scenes, 2) * (1 - area_B)[:, None]
    cell_N = (area_B / across_B)[scene_N]
    place_N2 = torch.stack([column_N + 0.25 + 0.5 * (row_N % 2), row_N + 0.5], 1)
    place_N2 = place_N2 + draws.normal(n, 2) * jitter_B[scene_N, None]
    return place_N2 * cell_N[:, None] + offset_B2[scene_N], cell_N


def _in_patches(draws: RandomDraws, scene_N: torch.Tensor, centre_N2: torch.Tensor, scenes: int) -> torch.Tensor:
    """Choose the objects to keep, bool [N]; in half of the scenes a smooth field leaves gaps between clusters."""
    rate_B, phase_B = draws.uniform(2, 9, 2, scenes), draws.uniform(0, 2 * math.pi, scenes)
    field_N = torch.sin(centre_N2[:, 0] * rate_B[0, scene_N] + phase_B[scene_N])
    field_N = field_N + torch.sin(centre_N2[:, 1] * rate_B[1, scene_N] + field_N)
    gaps_B = torch.where(draws.chance(0.5, scenes), draws.uniform(-1.0, 0.3, scenes), -9.0)
    return (field_N > gaps_B[scene_N]) & draws.chance(0.92, len(scene_N))


def _alike(draws: RandomDraws, objects: Objects, first_B: torch.Tensor, microscopy_B: torch.Tensor) -> Objects:
    """Give all objects of a scene the shape, parts and look of its first object; the outlines of some scenes vary."""
    n, scenes = len(objects), len(first_B)
    if n == 0:
        return objects
    # Take the first object of each scene as the model
    scene_N = objects.scene_N
    first = objects.rows(first_B[scene_N].clamp_max(n - 1))

    # Vary the outlines
    cells_N = microscopy_B[scene_N]
    varied_N = (draws.uniform(0, 1, n) < draws.choose((0.5, 0.5), scenes)[scene_N] * 0.7)[:, None]
    outline_NA = torch.where(varied_N & ~cells_N[:, None], objects.outline_NA, first.outline_NA)
    outline_NA = torch.where(cells_N[:, None], cell_outlines(draws, n), outline_NA)

    # Replace what is individual
    upright_N = draws.chance(0.3, scenes)[scene_N]
    return first.with_fields(
        shape_N=torch.where(cells_N, int(Shape.OUTLINE), first.shape_N),
        centre_N2=objects.centre_N2,
        radius_N=objects.radius_N,
        extent_N=objects.radius_N * 1.35 + 1,
        angle_N=torch.where(upright_N, first.angle_N, objects.angle_N),
        outline_NA=outline_NA,
        hole_N3=torch.where(cells_N[:, None], 0.0, first.hole_N3),
        whole_N=objects.whole_N,
        kin_N=torch.where(draws.chance(0.8, scenes)[scene_N], scene_N, scenes + torch.arange(n)),
    )
