"""Lighting: the shading of every object and the shadow that it casts. Shading and shadows change no mask.

Shape suffixes: B scenes, N objects.
"""

import math

import torch

from engine.scenes.objects import Objects
from engine.scenes.random_draws import RandomDraws


def with_shading(draws: RandomDraws, objects: Objects) -> Objects:
    """Add random shading: light from one side of each scene, rounded rims, sometimes dark or light contours."""
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
    light = torch.where((objects.region_span_N > 0)[:, None], torch.tensor([0.0, 0, 0, 1, 1, 0]), light)
    return objects.with_fields(light_N6=light)


def with_shadows(draws: RandomDraws, objects: Objects, microscopy_B: torch.Tensor) -> Objects:
    """Add soft shadows to most objects of six in ten scenes, never to microscopy.

    Within a scene, all shadows fall in about the same direction.
    """
    n, scenes = len(objects), len(microscopy_B)
    cast_N = (
        (draws.chance(0.6, scenes) & ~microscopy_B)[objects.scene_N]
        & draws.chance(0.75, n)
        & (objects.region_span_N == 0)
    )
    turn_N = draws.uniform(0, 2 * math.pi, scenes)[objects.scene_N] + 0.1 * draws.normal(n)
    reach_N = objects.radius_N * draws.uniform(0.0, 0.3, scenes)[objects.scene_N] + 1.5
    dark_N = draws.uniform(0.2, 0.65, scenes)[objects.scene_N] * cast_N
    soft_N = 0.7 + objects.radius_N * draws.uniform(0, 0.12, n)
    shadow = torch.stack([(turn_N.cos() * reach_N).round(), (turn_N.sin() * reach_N).round(), dark_N, soft_N], 1)
    return objects.with_fields(shadow_N4=shadow, extent_N=objects.extent_N + soft_N * cast_N)
