"""Visible leaves: the one-pass maximum against rendering object after object, and the shapes against geometry."""

import math

import pytest
import torch

from engine.scenes.layout import plan_scenes
from engine.scenes.objects import Objects, Shape, Split, plain_objects
from engine.scenes.random_draws import RandomDraws
from engine.scenes.render import Surface, find_surface
from engine.scenes.textures import default_atlas

CPU = torch.device("cpu")
SIDE = 64


def surface(objects: Objects, *, scenes: int = 1) -> Surface:
    return find_surface(objects, scenes, SIDE, default_atlas("cpu"), CPU)


def one(shape: Shape, radius: float, **fields: torch.Tensor) -> torch.Tensor:
    """bool [S, S]: where an object in the middle of an otherwise empty image is."""
    ground = plain_objects(torch.zeros(2, dtype=torch.int64), Shape.EVERYTHING)
    objects = ground.with_fields(
        shape_N=torch.tensor([Shape.EVERYTHING, shape]),
        centre_N2=torch.full((2, 2), SIDE / 2),
        radius_N=torch.full((2,), radius),
        extent_N=torch.tensor([SIDE, radius * 1.3]),
        **{name: torch.cat([torch.zeros_like(value), value]) for name, value in fields.items()},
    )
    return surface(objects).leaf_BSS[0] >= 2


def test_the_visible_leaf_is_what_painting_one_after_the_other_leaves() -> None:
    scenes = 4
    objects = plan_scenes(RandomDraws(1), scenes, SIDE).objects
    at_once = surface(objects, scenes=scenes)
    first = 2 * (objects.labels_N.cumsum(0) - objects.labels_N)
    canvas = torch.zeros(scenes, SIDE, SIDE, dtype=torch.int64)
    ground = plain_objects(torch.zeros(1, dtype=torch.int64), Shape.EVERYTHING)
    for row in range(len(objects)):
        alone = objects.rows(slice(row, row + 1))
        scene = int(alone.scene_N)
        alone = alone.with_fields(scene_N=torch.zeros(1, dtype=torch.int64))
        pair = Objects(**{name: torch.cat([getattr(ground, name), getattr(alone, name)]) for name in vars(ground)})
        leaf = surface(pair).leaf_BSS[0]
        canvas[scene] = torch.where(leaf >= 2, leaf - 2 + first[row], canvas[scene])
    assert torch.equal(at_once.leaf_BSS, canvas)


def test_a_round_outline_has_the_area_of_a_disc() -> None:
    disc = one(Shape.OUTLINE, 20.0, outline_NA=torch.ones(1, 128))
    assert float(disc.sum()) == pytest.approx(math.pi * 400, rel=0.01)


def test_a_hole_is_cut_out() -> None:
    hole = torch.tensor([[0.0, 0.0, 0.5]])
    ring = one(Shape.OUTLINE, 20.0, outline_NA=torch.ones(1, 128), hole_N3=hole)
    assert float(ring.sum()) == pytest.approx(math.pi * 300, rel=0.02)


def test_a_quad_without_tilt_is_a_rectangle() -> None:
    quad = one(Shape.QUAD, 20.0, quad_N5=torch.tensor([[0.8, 0.4, 0.0, 0.0, 0.0]]))
    assert int(quad.sum()) == 32 * 16
    rows, columns = quad.any(1).nonzero(), quad.any(0).nonzero()
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (24, 39, 16, 47)


def test_a_capsule_is_two_half_discs_and_a_rectangle() -> None:
    capsules = torch.full((1, 14, 6), -1.0)
    capsules[0, 0] = torch.tensor([-0.5, 0.0, 0.5, 0.0, 0.3, 0.3])
    chain = one(Shape.CHAIN, 20.0, capsules_NM6=capsules)
    assert float(chain.sum()) == pytest.approx(20 * 12 + math.pi * 36, rel=0.03)


@pytest.mark.parametrize("split", list(Split))
def test_labels_stay_below_their_number(split: Split) -> None:
    objects = plan_scenes(RandomDraws(7), 24, SIDE).objects
    chosen = objects.split_N == int(split)
    assert chosen.any()
    leaf = surface(objects, scenes=24).leaf_BSS
    scene = objects.tree()[0]
    assert torch.equal(scene[leaf], torch.arange(24)[:, None, None].expand_as(leaf))


def test_shadows_darken_only_what_lies_behind() -> None:
    objects = plain_objects(torch.zeros(3, dtype=torch.int64), Shape.OUTLINE).with_fields(
        shape_N=torch.tensor([Shape.EVERYTHING, Shape.OUTLINE, Shape.OUTLINE]),
        centre_N2=torch.tensor([[32.0, 32], [24, 32], [36, 32]]),
        radius_N=torch.tensor([32.0, 8, 6]),
        extent_N=torch.tensor([64.0, 10, 8]),
        shadow_N4=torch.tensor([[0.0, 0, 0, 1], [12, 0, 0.5, 1], [0, 0, 0, 1]]),
    )
    seen = surface(objects)
    leaf, shade = seen.leaf_BSS[0], seen.shade_BSS[0]
    assert (shade[leaf >= 2] == 1).all(), "neither the caster nor what is in front of it"
    assert float(shade[32, 42]) == pytest.approx(0.5, abs=0.1), "the ground beside the front object"
    assert float(shade[5, 5]) == 1
