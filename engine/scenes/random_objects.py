"""Random objects of every family at given places, for scenes that scatter or repeat objects.

Shape suffixes: N objects.
"""

import math

import torch

from engine.scenes.objects import Objects, Shape, Split, plain_objects
from engine.scenes.parts import with_random_parts, with_second_cuts
from engine.scenes.random_draws import RandomDraws
from engine.scenes.shapes import creatures, glyphs, outlines, wires


def random_objects(
    draws: RandomDraws,
    scene_N: torch.Tensor,
    centre_N2: torch.Tensor,
    radius_N: torch.Tensor,
    cut_fraction_N: torch.Tensor,
) -> Objects:
    """Draw random objects of all families at the given places.

    Args:
        cut_fraction_N: probability that an object is divided into parts.
    """
    # Draw the family of each object, and the capsules of those that are chains
    n = len(scene_N)
    creature, quad, wire, glyph = range(1, 5)
    family = draws.choose((0.62, 0.16, 0.12, 0.05, 0.05), n)
    shape = torch.tensor([Shape.OUTLINE, Shape.CHAIN, Shape.QUAD, Shape.CHAIN, Shape.CHAIN])[family]
    capsules, labels = creatures(draws, n)
    capsules = torch.where((family == wire)[:, None, None], wires(draws, n), capsules)
    capsules = torch.where((family == glyph)[:, None, None], glyphs(draws, n), capsules)
    jointed = (family == creature) & draws.chance(cut_fraction_N * 1.4, n)

    # Fill the table
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

    # Cut into parts; thin objects stay whole, jointed ones have a part per limb
    objects = with_random_parts(draws, objects, cut_fraction_N)
    thin = (family == wire) | (family == glyph)
    return _jointed(draws, _unsplit(objects, thin | jointed), jointed)


def parts_fraction(fraction_N: torch.Tensor) -> torch.Tensor:
    """Compute a factor that makes divisions of small objects into parts rarer, since such parts would be specks.

    `fraction_N` is the radius of each object divided by the scene's side. The factor grows from 0 at radius 0 to
    1 at 1/8 of the side.
    """
    return (fraction_N * 8).square().clamp_max(1)


def _unsplit(objects: Objects, rows: torch.Tensor) -> Objects:
    """Make the objects in these rows undivided."""
    plain_band = torch.tensor([0.0, 1, 0, 0, 1, 0, 0, 0])
    return objects.with_fields(
        split_N=torch.where(rows, int(Split.NONE), objects.split_N),
        bands_N2F=torch.where(rows[:, None, None], 0.0, objects.bands_N2F),
        band_N8=torch.where(rows[:, None], plain_band, objects.band_N8),
        subsplit_N=torch.where(rows, 0, objects.subsplit_N),
        labels_N=torch.where(rows, 1, objects.labels_N),
    )


def _jointed(draws: RandomDraws, objects: Objects, rows: torch.Tensor) -> Objects:
    """Make each limb of the chains in these rows a part, and divide one in five of these parts in two."""
    seven = objects.with_fields(labels_N=torch.where(rows, 7, objects.labels_N))
    cut = with_second_cuts(draws, seven, torch.where(rows, 0.2, 0.0))
    return cut.with_fields(
        subsplit_N=torch.where(rows, cut.subsplit_N, objects.subsplit_N),
        split_N=torch.where(rows & (cut.subsplit_N != 0), int(Split.BANDS), objects.split_N),
    )


def _holes(draws: RandomDraws, n: int) -> torch.Tensor:
    """Draw x, y and radius of a random hole for one in eight outlines, 0 for the others; a wide hole makes a ring."""
    hole = torch.cat([draws.normal(n, 2) * 0.15, draws.uniform(0.1, 0.6, n, 1)], 1)
    return torch.where(draws.chance(0.125, n, 1), hole, 0.0)


def quads(draws: RandomDraws, n: int) -> torch.Tensor:
    """Draw `n` random rows of `Objects.quad_N5`.

    Half of the quads have rounded corners, and all are in slight perspective.
    """
    ratio = draws.uniform(0.15, 1.4, n)
    half_w, half_h = ratio.cos() * 0.95, ratio.sin() * 0.95
    corner = torch.minimum(half_w, half_h) * draws.uniform(0, 0.6, n) * draws.choose((0.5, 0.5), n)
    return torch.stack([half_w, half_h, corner, draws.uniform(-0.22, 0.22, n), draws.uniform(-0.22, 0.22, n)], 1)
