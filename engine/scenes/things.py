"""Things: the objects that are scattered or repeated, of every family, at given places.

Shape suffixes: N objects.
"""

import math

import torch

from engine.scenes.draws import Draws
from engine.scenes.objects import Objects, Shape, Split, plain_objects
from engine.scenes.parts import with_random_parts, with_second_cuts
from engine.scenes.shapes import creatures, glyphs, outlines, wires


def make_things(
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
        quad_N5=quads(draws, n),
    )
    objects = with_random_parts(draws, objects, cut_share_N)
    thin = (family == wire) | (family == glyph)
    return _jointed(draws, _unsplit(objects, thin | jointed), jointed)


def parts_share(share_N: torch.Tensor) -> torch.Tensor:
    """0 to 1 as the radius grows to an eighth of the side: parts of small objects would be specks."""
    return (share_N * 8).square().clamp_max(1)


def _unsplit(objects: Objects, rows: torch.Tensor) -> Objects:
    """These rows without parts."""
    plain_band = torch.tensor([0.0, 1, 0, 0, 1, 0, 0, 0])
    return objects.with_fields(
        split_N=torch.where(rows, int(Split.NONE), objects.split_N),
        bands_N2F=torch.where(rows[:, None, None], 0.0, objects.bands_N2F),
        band_N8=torch.where(rows[:, None], plain_band, objects.band_N8),
        subsplit_N=torch.where(rows, 0, objects.subsplit_N),
        labels_N=torch.where(rows, 1, objects.labels_N),
    )


def _jointed(draws: Draws, objects: Objects, rows: torch.Tensor) -> Objects:
    """These chains with a part for each limb, a quarter of the parts cut again."""
    seven = objects.with_fields(labels_N=torch.where(rows, 7, objects.labels_N))
    cut = with_second_cuts(draws, seven, torch.where(rows, 0.2, 0.0))
    return cut.with_fields(
        subsplit_N=torch.where(rows, cut.subsplit_N, objects.subsplit_N),
        split_N=torch.where(rows & (cut.subsplit_N != 0), int(Split.BANDS), objects.split_N),
    )


def _holes(draws: Draws, n: int) -> torch.Tensor:
    """x, y, radius of the hole in one outline of eight: rings when it is central and wide."""
    hole = torch.cat([draws.normal(n, 2) * 0.15, draws.uniform(0.1, 0.6, n, 1)], 1)
    return torch.where(draws.chance(0.125, n, 1), hole, 0.0)


def quads(draws: Draws, n: int) -> torch.Tensor:
    """quad_N5 of any ratio of sides, half of them with rounded corners, all seen a little from the side."""
    ratio = draws.uniform(0.15, 1.4, n)
    half_w, half_h = ratio.cos() * 0.95, ratio.sin() * 0.95
    corner = torch.minimum(half_w, half_h) * draws.uniform(0, 0.6, n) * draws.choose((0.5, 0.5), n)
    return torch.stack([half_w, half_h, corner, draws.uniform(-0.22, 0.22, n), draws.uniform(-0.22, 0.22, n)], 1)
