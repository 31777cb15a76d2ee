"""Layout: what stands where in each scene, all scenes of a batch at once, decided on the host.

Shape suffixes: B scenes, N objects.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import torch

from engine.scenes.draws import Draws
from engine.scenes.objects import Objects, Shape, Split, join, plain_objects
from engine.scenes.parts import with_random_parts, with_second_cuts
from engine.scenes.shapes import creatures, glyphs, outlines, wires
from engine.scenes.textures import NUM_SMOOTH

SMALLEST_RADIUS = 0.015
LARGEST_RADIUS = 0.5
"""Of scattered objects, as shares of the side."""


class Kind(IntEnum):
    """What a scene is mostly made of."""

    LEAVES = 0
    INSTANCES = 1
    STREET = 2
    PARTITION = 3


KIND_WEIGHTS = (0.58, 0.22, 0.1, 0.1)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Objects sorted by scene and from back to front, and what the camera has to know of each scene."""

    objects: Objects
    microscopy_B: torch.Tensor
    """bool: grey pictures of cells."""


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """Objects and their place in the order of painting: a larger height is further in front."""

    objects: Objects
    height_N: torch.Tensor


def plan_scenes(draws: Draws, scenes: int, side: int) -> Layout:
    """Everything that `scenes` pictures of side x side pixels contain."""
    kind_B = draws.choose(KIND_WEIGHTS, scenes)
    microscopy_B = (kind_B == Kind.INSTANCES) & draws.chance(0.4, scenes)
    populations = [
        _backgrounds(draws, kind_B, microscopy_B, side),
        _instances(draws, kind_B, microscopy_B, side),
        _buildings(draws, kind_B, side),
        _scattered(draws, kind_B, microscopy_B, side),
        _thin(draws, kind_B, side),
    ]
    objects = join([p.objects for p in _with_distinct_kin([p for p in populations if len(p.objects)])])
    height_N = torch.cat([p.height_N for p in populations])
    objects = _with_shadows(draws, _with_shading(draws, objects), microscopy_B)
    front_to_back = height_N.argsort(stable=True)
    order = front_to_back[objects.scene_N[front_to_back].argsort(stable=True)]
    return Layout(objects=objects.rows(order), microscopy_B=microscopy_B)


def _with_distinct_kin(populations: list[_Placed]) -> list[_Placed]:
    """Kin numbers start at 0 in every population: shift them apart."""
    shifted, start = [], 0
    for placed in populations:
        kin_N = placed.objects.kin_N + start
        start = int(kin_N.max()) + 1
        shifted.append(_Placed(objects=placed.objects.with_fields(kin_N=kin_N), height_N=placed.height_N))
    return shifted


def _scene_rows(count_B: torch.Tensor) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(count_B)), count_B)


def _backgrounds(draws: Draws, kind_B: torch.Tensor, microscopy_B: torch.Tensor, side: int) -> _Placed:
    """One object that fills the picture: a single surface, bands about a horizon, or a warped Voronoi partition."""
    n = len(kind_B)
    single, horizon, voronoi = range(3)
    weights = {
        Kind.LEAVES: (0.3, 0.3, 0.4),
        Kind.INSTANCES: (0.7, 0.15, 0.15),
        Kind.STREET: (0.1, 0.7, 0.2),
        Kind.PARTITION: (0.0, 0.25, 0.75),
    }
    options = torch.stack([draws.choose(weights[kind], n) for kind in Kind])
    form = torch.where(microscopy_B, single, options[kind_B, torch.arange(n)])
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
    objects = objects.with_fields(
        split_N=torch.where(form == voronoi, int(Split.SITES), int(Split.BANDS)),
        centre_N2=torch.full((n, 2), side / 2),
        radius_N=torch.full((n,), side / 2),
        extent_N=torch.full((n,), float(side)),
        angle_N=draws.normal(n) * 0.12,
        sites_NK3=torch.cat([place, weight[:, :, None]], 2),
        warp_N4=warp,
        noise_N6=noise,
        labels_N=torch.where(form == voronoi, sites, bands),
        regions_N=torch.ones(n, dtype=torch.bool),
    )
    objects = with_second_cuts(draws, objects, torch.where(form == single, 0.0, 0.12))
    return _Placed(objects=objects, height_N=torch.full((n,), -1e9))


def _scattered(draws: Draws, kind_B: torch.Tensor, microscopy_B: torch.Tensor, side: int) -> _Placed:
    """Dead leaves: radii with density r^-3, mostly large behind small."""
    scenes = len(kind_B)
    many = draws.log_uniform(4, 50, scenes)
    few = draws.uniform(0, 8, scenes) * draws.chance(0.6, scenes)
    count_B = torch.where(kind_B == Kind.LEAVES, many, torch.where(microscopy_B, 0.0, few)).round().long()
    scene_N = _scene_rows(count_B)
    n = len(scene_N)
    smallest_N = draws.log_uniform(SMALLEST_RADIUS, 0.2, scenes)[scene_N]
    span = 1 - (smallest_N / LARGEST_RADIUS).square()
    share_N = smallest_N / (1 - draws.uniform(0, 1, n) * span).sqrt()
    height_N = -share_N.log() + 0.7 * draws.normal(n)
    centre_N2 = draws.uniform(-0.04, 1.04, n, 2) * side
    return _Placed(
        objects=_things(draws, scene_N, centre_N2, share_N * side, 0.55 * _large(share_N)), height_N=height_N
    )


def _things(
    draws: Draws, scene_N: torch.Tensor, centre_N2: torch.Tensor, radius_N: torch.Tensor, cut_share_N: torch.Tensor
) -> Objects:
    """Objects of all families at the given places."""
    n = len(scene_N)
    creature, quad, wire, glyph = range(1, 5)
    family = draws.choose((0.62, 0.16, 0.12, 0.05, 0.05), n)
    shape = torch.tensor([Shape.OUTLINE, Shape.CHAIN, Shape.QUAD, Shape.CHAIN, Shape.CHAIN])[family]
    capsules, labels = creatures(draws, n)
    capsules = torch.where((family == wire)[:, None, None], wires(draws, n), capsules)
    capsules = torch.where((family == glyph)[:, None, None], glyphs(draws, n), capsules)
    jointed = (family == creature) & draws.chance(cut_share_N * 1.4, n)
    objects = plain_objects(scene_N, Shape.OUTLINE).with_fields(
        shape_N=shape,
        centre_N2=centre_N2,
        radius_N=radius_N,
        extent_N=radius_N * torch.where(family == quad, 1.35, torch.where(family == creature, 1.15, 1.02)) + 1,
        angle_N=torch.where(
            (family == glyph) | ((family == quad) & draws.chance(0.6, n)),
            draws.normal(n) * 0.08,
            draws.uniform(0, 2 * math.pi, n),
        ),
        outline_NA=outlines(draws, n),
        hole_N3=_holes(draws, n),
        capsules_NM6=capsules,
        capsule_label_NM=torch.where(jointed[:, None], labels, 0),
        quad_N5=_quads(draws, n),
    )
    objects = with_random_parts(draws, objects, cut_share_N)
    thin = (family == wire) | (family == glyph)
    return _jointed(draws, _unsplit(objects, thin | jointed), jointed)


def _large(share_N: torch.Tensor) -> torch.Tensor:
    """0 to 1 as the radius grows to an eighth of the side: parts of small objects would be specks."""
    return (share_N * 8).square().clamp_max(1)


def _unsplit(objects: Objects, rows: torch.Tensor) -> Objects:
    """These rows without parts."""
    plain = plain_objects(objects.scene_N, Shape.OUTLINE)
    return objects.with_fields(
        split_N=torch.where(rows, int(Split.BANDS), objects.split_N),
        bands_N2F=torch.where(rows[:, None, None], plain.bands_N2F, objects.bands_N2F),
        band_N8=torch.where(rows[:, None], plain.band_N8, objects.band_N8),
        subsplit_N=torch.where(rows, 0, objects.subsplit_N),
        labels_N=torch.where(rows, 1, objects.labels_N),
    )


def _jointed(draws: Draws, objects: Objects, rows: torch.Tensor) -> Objects:
    """These chains with a part for each limb, a quarter of the parts cut again."""
    seven = objects.with_fields(labels_N=torch.where(rows, 7, objects.labels_N))
    cut = with_second_cuts(draws, seven, torch.where(rows, 0.2, 0.0))
    return cut.with_fields(subsplit_N=torch.where(rows, cut.subsplit_N, objects.subsplit_N))


def _holes(draws: Draws, n: int) -> torch.Tensor:
    """x, y, radius of the hole in one outline of eight: rings when it is central and wide."""
    hole = torch.cat([draws.normal(n, 2) * 0.15, draws.uniform(0.1, 0.6, n, 1)], 1)
    return torch.where(draws.chance(0.125, n, 1), hole, 0.0)


def _quads(draws: Draws, n: int) -> torch.Tensor:
    ratio = draws.uniform(0.15, 1.4, n)
    half_w, half_h = ratio.cos() * 0.95, ratio.sin() * 0.95
    corner = torch.minimum(half_w, half_h) * draws.uniform(0, 0.6, n) * draws.choose((0.5, 0.5), n)
    return torch.stack([half_w, half_h, corner, draws.uniform(-0.22, 0.22, n), draws.uniform(-0.22, 0.22, n)], 1)


def _buildings(draws: Draws, kind_B: torch.Tensor, side: int) -> _Placed:
    """Large upright quads with a grid of windows, in perspective."""
    scenes = len(kind_B)
    count_B = torch.where(kind_B == Kind.STREET, draws.integers(1, 4, scenes), draws.chance(0.12, scenes).long())
    count_B = torch.where(kind_B == Kind.INSTANCES, 0, count_B)
    scene_N = _scene_rows(count_B)
    n = len(scene_N)
    radius_N = draws.uniform(0.22, 0.6, n) * side
    columns, rows = draws.integers(2, 7, n), draws.integers(2, 6, n)
    objects = plain_objects(scene_N, Shape.QUAD)
    quad_N5 = _quads(draws, n)
    quad_N5[:, 2] = 0
    bands_N2F, band_N8 = objects.bands_N2F, objects.band_N8
    bands_N2F[:, 0, 0], bands_N2F[:, 1, 1] = columns / (2 * quad_N5[:, 0]), rows / (2 * quad_N5[:, 1])
    band_N8[:, 0], band_N8[:, 1], band_N8[:, 2] = columns / 2, columns, draws.uniform(0.12, 0.34, n)
    band_N8[:, 3], band_N8[:, 4], band_N8[:, 5] = rows / 2, rows, draws.uniform(0.12, 0.34, n)
    objects = objects.with_fields(
        centre_N2=torch.stack([draws.uniform(0, 1, n), draws.uniform(0.25, 0.85, n)], 1) * side,
        radius_N=radius_N,
        extent_N=radius_N * 1.35 + 1,
        angle_N=draws.normal(n) * 0.04,
        quad_N5=quad_N5,
        bands_N2F=bands_N2F,
        band_N8=band_N8,
        labels_N=1 + columns * rows,
    )
    objects = with_second_cuts(draws, objects, torch.where(draws.chance(0.25, n), 0.5, 0.0))
    return _Placed(objects=objects, height_N=-(radius_N / side).log() + 0.3 * draws.normal(n))


def _thin(draws: Draws, kind_B: torch.Tensor, side: int) -> _Placed:
    """Long wires and branches, wherever in the order."""
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


def _instances(draws: Draws, kind_B: torch.Tensor, microscopy_B: torch.Tensor, side: int) -> _Placed:
    """Many of a kind, in a grid, in touching clusters, or anywhere; cells in microscopy, anything elsewhere."""
    scenes = len(kind_B)
    many = draws.log_uniform(4, 80, scenes)
    extra = torch.where((kind_B == Kind.LEAVES) & draws.chance(0.12, scenes), draws.log_uniform(5, 30, scenes), 0.0)
    wanted_B = torch.where(kind_B == Kind.INSTANCES, many, extra).ceil().long()
    across_B = wanted_B.float().sqrt().ceil().clamp_min(1)
    scene_N = _scene_rows((across_B.square() * (wanted_B > 0)).long())
    n = len(scene_N)
    first_B = torch.zeros(scenes, dtype=torch.int64)
    first_B[1:] = torch.bincount(scene_N, minlength=scenes).cumsum(0)[:-1]
    index_N = torch.arange(n) - first_B[scene_N]
    across_N = across_B[scene_N]
    row_N, column_N = (index_N / across_N).floor(), index_N % across_N
    area_B = torch.where(draws.chance(0.6, scenes), 1.0, draws.uniform(0.4, 0.9, scenes))
    jitter_B = draws.choose((0.3, 0.4, 0.3), scenes) * 0.22
    offset_B2 = draws.uniform(0, 1, scenes, 2) * (1 - area_B)[:, None]
    cell_N = (area_B / across_B)[scene_N]
    grid_N2 = torch.stack([column_N + 0.25 + 0.5 * (row_N % 2), row_N + 0.5], 1)
    grid_N2 = grid_N2 + draws.normal(n, 2) * jitter_B[scene_N, None]
    centre_N2 = (grid_N2 * cell_N[:, None] + offset_B2[scene_N]) * side
    fill_B, spread_B = draws.uniform(0.28, 0.62, scenes), draws.uniform(0.02, 0.3, scenes)
    radius_N = (cell_N * fill_B[scene_N] * side * (draws.normal(n) * spread_B[scene_N]).exp()).clamp_min(
        SMALLEST_RADIUS * side
    )
    objects = _alike(
        draws, _things(draws, scene_N, centre_N2, radius_N, 0.4 * _large(radius_N / side)), first_B, microscopy_B
    )
    # Patches of smooth noise leave gaps, so that what stays forms clusters.
    rate_B, phase_B = draws.uniform(2, 9, 2, scenes), draws.uniform(0, 2 * math.pi, scenes)
    field = torch.sin(centre_N2[:, 0] / side * rate_B[0, scene_N] + phase_B[scene_N])
    field = field + torch.sin(centre_N2[:, 1] / side * rate_B[1, scene_N] + field)
    gaps_B = torch.where(draws.chance(0.5, scenes), draws.uniform(-1.0, 0.3, scenes), -9.0)
    kept = (field > gaps_B[scene_N]) & draws.chance(0.92, n)
    objects = objects.rows(kept)
    return _Placed(objects=objects, height_N=draws.uniform(-2, -1, len(objects)))


def _alike(draws: Draws, objects: Objects, first_B: torch.Tensor, microscopy_B: torch.Tensor) -> Objects:
    """Instances of a scene take after its first: shape family, parts and look; outlines vary a little or a lot."""
    n, scenes = len(objects), len(first_B)
    if n == 0:
        return objects
    scene_N = objects.scene_N
    model = first_B[scene_N].clamp_max(n - 1)
    first = objects.rows(model)
    cells_N = microscopy_B[scene_N]
    varied_N = (draws.uniform(0, 1, n) < draws.choose((0.5, 0.5), scenes)[scene_N] * 0.7)[:, None]
    outline_NA = torch.where(varied_N & ~cells_N[:, None], objects.outline_NA, first.outline_NA)
    outline_NA = torch.where(cells_N[:, None], _cell_outlines(draws, n), outline_NA)
    upright_N = draws.chance(0.3, scenes)[scene_N]
    return first.with_fields(
        shape_N=torch.where(cells_N, int(Shape.OUTLINE), first.shape_N),
        centre_N2=objects.centre_N2,
        radius_N=objects.radius_N,
        extent_N=objects.radius_N * 1.35 + 1,
        angle_N=torch.where(upright_N, first.angle_N, objects.angle_N),
        outline_NA=outline_NA,
        hole_N3=torch.where(cells_N[:, None], 0.0, first.hole_N3),
        kin_N=torch.where(draws.chance(0.8, scenes)[scene_N], scene_N, scenes + torch.arange(n)),
    )


def _cell_outlines(draws: Draws, n: int) -> torch.Tensor:
    """Ovals with a dent or two, like nuclei."""
    angle = torch.arange(128) * (2 * math.pi / 128)
    ratio = draws.uniform(0.55, 1.0, n, 1)
    oval = torch.hypot(angle.cos(), angle.sin() / ratio).reciprocal()
    dents = draws.uniform(0, 0.12, n, 1) * torch.cos(3 * angle + draws.uniform(0, 6.3, n, 1))
    dents = dents + draws.uniform(0, 0.1, n, 1) * torch.cos(2 * angle + draws.uniform(0, 6.3, n, 1))
    outline_NA = oval * (1 + dents)
    return outline_NA / outline_NA.amax(1, keepdim=True)


def _with_shading(draws: Draws, objects: Objects) -> Objects:
    """Light from one side of each scene, rounded rims, and sometimes a dark or light contour."""
    n, scenes = len(objects), int(objects.scene_N.max()) + 1
    sun_B = draws.uniform(0, 2 * math.pi, scenes)
    strength_N = (draws.uniform(0, 0.35, scenes)[objects.scene_N] * draws.uniform(0.3, 1, n)) * draws.chance(0.7, n)
    towards = sun_B[objects.scene_N] - objects.angle_N
    rim = draws.uniform(-0.15, 0.6, n) * draws.chance(0.5, n)
    contour_N = draws.chance(0.1, scenes)[objects.scene_N] & draws.chance(0.9, n)
    contour = torch.where(contour_N, torch.where(draws.chance(0.7, n), 0.35, 1.6), 1.0)
    light = torch.stack(
        [towards.cos() * strength_N, towards.sin() * strength_N, rim, draws.uniform(0.1, 1.0, n), contour,
         draws.uniform(0.8, 2.2, scenes)[objects.scene_N]], 1,
    )  # fmt: skip
    light = torch.where(objects.regions_N[:, None], torch.tensor([0.0, 0, 0, 1, 1, 0]), light)
    return objects.with_fields(light_N6=light)


def _with_shadows(draws: Draws, objects: Objects, microscopy_B: torch.Tensor) -> Objects:
    """In six scenes of ten most objects cast a soft shadow, all in about the same direction."""
    n, scenes = len(objects), len(microscopy_B)
    cast_N = (draws.chance(0.6, scenes) & ~microscopy_B)[objects.scene_N] & draws.chance(0.75, n) & ~objects.regions_N
    turn_N = draws.uniform(0, 2 * math.pi, scenes)[objects.scene_N] + 0.1 * draws.normal(n)
    reach_N = objects.radius_N * draws.uniform(0.0, 0.3, scenes)[objects.scene_N] + 1.5
    dark_N = draws.uniform(0.2, 0.65, scenes)[objects.scene_N] * cast_N
    soft_N = 0.7 + objects.radius_N * draws.uniform(0, 0.12, n)
    shadow = torch.stack([(turn_N.cos() * reach_N).round(), (turn_N.sin() * reach_N).round(), dark_N, soft_N], 1)
    return objects.with_fields(shadow_N4=shadow, extent_N=objects.extent_N + soft_N * cast_N)
