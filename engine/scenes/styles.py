"""Styles: the colours and textures of every leaf (smallest region). Most parts look similar to their object.

Shape suffixes: B scenes, N objects, P parts, G leaves, C the columns of a style.
"""

import math
from enum import IntEnum

import torch

from engine.scenes.objects import Alike, Objects
from engine.scenes.parts import MAX_LABELS
from engine.scenes.random_draws import RandomDraws
from engine.scenes.textures import NUM_SMOOTH, NUM_TEXTURES

RELATED = 0.7
"""Fraction of the parts whose style is a variation of the style of their object."""


class Style(IntEnum):
    """Columns of a style.

    A pixel's colour is interpolated from DARK to LIGHT by 0.5 + textures * strengths + gradient.
    """

    DARK_R, DARK_G, DARK_B, LIGHT_R, LIGHT_G, LIGHT_B = range(6)
    TEXTURE, TURN_X, TURN_Y, SHIFT_U, SHIFT_V, STRENGTH = range(6, 12)
    SMOOTH, SMOOTH_SCALE, SMOOTH_STRENGTH = range(12, 15)
    GRADIENT_X, GRADIENT_Y = range(15, 17)
    TILT_X, TILT_Y = range(17, 19)


NUM_COLUMNS = len(Style)
"""Number of columns of a style."""


def leaf_styles(draws: RandomDraws, objects: Objects, scenes: int, side: int) -> torch.Tensor:
    """Draw a random style for each leaf: every part of every object has two.

    Returns:
        One row a leaf (G) and one column a field of a style (C), float32 [G, C].
    """
    palette_BK3 = _palettes(draws, scenes)
    owner_P, whole_P = objects.parts()
    parts, scene_P, region_P = len(owner_P), objects.scene_N[owner_P], objects.region_span_N[owner_P] > 0

    # Number kin and wholes; a region of the background is its own kin
    kin_P = torch.where(region_P, int(objects.kin_N.max()) + 1 + whole_P, objects.kin_N[owner_P])
    _, kin_P = kin_P.unique(return_inverse=True)
    _, whole_P = whole_P.unique(return_inverse=True)
    first_of_whole = torch.full((parts,), parts).scatter_reduce_(0, whole_P, torch.arange(parts), "amin")
    first_P = first_of_whole[whole_P]

    # Draw a style for each kin, vary it for each whole, then for each part and each half
    scene_of_kin = torch.zeros(parts, dtype=torch.int64).scatter_(0, kin_P, scene_P)
    kin_KC = _random_styles(draws, palette_BK3, scene_of_kin[: int(kin_P.max()) + 1], side)
    spread_P1 = draws.log_uniform(0.015, 0.12, scenes, 1)[scene_P]
    whole_PC = _varied(draws, kin_KC[kin_P], spread_P1)[first_P]
    part_PC = _related_styles(draws, whole_PC, palette_BK3, scene_P, side)
    part_PC = torch.where((first_P == torch.arange(parts))[:, None], whole_PC, part_PC)
    part_PC = _with_tilt(draws, part_PC[_models(objects, owner_P, kin_P)], region_P)
    part_PC = _varied(draws, part_PC, 0.02)
    half_PC = _related_styles(draws, part_PC, palette_BK3, scene_P, side)
    return torch.stack([part_PC, half_PC], 1).flatten(0, 1)


def _models(objects: Objects, owner_P: torch.Tensor, kin_P: torch.Tensor) -> torch.Tensor:
    """Find, for each part, the first part that has the same look, int64 [P]; repeated objects share a look."""
    label_P = torch.arange(len(owner_P)) - (objects.labels_N.cumsum(0) - objects.labels_N)[owner_P]
    alike_P = objects.alike_N[owner_P]
    look_P = torch.where(alike_P == int(Alike.BUT_GROUND), label_P.clamp_max(1), label_P)
    look_P = torch.where(alike_P == int(Alike.ALTERNATE), label_P % 2, look_P)
    _, look_P = (kin_P * (2 * MAX_LABELS) + look_P).unique(return_inverse=True)
    parts = len(owner_P)
    return torch.full((parts,), parts).scatter_reduce_(0, look_P, torch.arange(parts), "amin")[look_P]


def _palettes(draws: RandomDraws, scenes: int, colours: int = 6) -> torch.Tensor:
    """Draw a random palette of a few colours around one hue for each scene, float32 RGB [B, K, 3] in [0, 1]."""
    hue = _natural_hues(draws, scenes, 1) + draws.normal(scenes, colours) * draws.uniform(0.02, 0.3, scenes, 1)
    vivid = draws.uniform(0.1, 1, scenes, colours) * draws.uniform(0.2, 1, scenes, 1)
    value = draws.uniform(-0.1, 1.1, scenes, colours).clamp(0.06, 1)
    return _rgb(hue, vivid, value)


def _natural_hues(draws: RandomDraws, *shape: int) -> torch.Tensor:
    """Draw random hues, in turns: mostly earth, skin, foliage and sky, as in photos, and some of all others."""
    centres = torch.tensor([0.08, 0.2, 0.32, 0.58, 0.98, 0.8])
    hue = centres[draws.choose((0.33, 0.15, 0.14, 0.2, 0.12, 0.06), *shape)] + 0.04 * draws.normal(*shape)
    return torch.where(draws.chance(0.2, *shape), draws.uniform(0, 1, *shape), hue)


def _rgb(hue: torch.Tensor, vivid: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Convert hue (in turns), saturation and value to RGB; the three channels are a new last axis."""
    thirds = torch.tensor([0.0, 2 / 3, 1 / 3])
    ramp = (((hue[..., None] + thirds) % 1.0) * 6 - 3).abs().sub(1).clamp(0, 1)
    return value[..., None] * (1 - vivid[..., None] * (1 - ramp))


def _random_styles(draws: RandomDraws, palette_BK3: torch.Tensor, scene_N: torch.Tensor, side: int) -> torch.Tensor:
    n = len(scene_N)
    style = torch.zeros(n, NUM_COLUMNS)
    own = palette_BK3[scene_N, draws.integers(0, palette_BK3.shape[1], n)] + 0.06 * draws.normal(n, 3)
    free = _rgb(_natural_hues(draws, n), draws.uniform(0, 1, n).square(), draws.uniform(0.05, 1, n))
    colour = torch.where(draws.chance(0.7, n, 1), own, free).clamp(0.03, 0.97)
    contrast = torch.where(draws.chance(0.2, n), 0.04, draws.log_uniform(0.08, 0.9, n))[:, None]
    tint = 1 + 0.25 * draws.normal(n, 3)
    style[:, Style.DARK_R : Style.DARK_B + 1] = colour * (1 - 0.8 * contrast)
    style[:, Style.LIGHT_R : Style.LIGHT_B + 1] = colour + 0.5 * contrast * tint
    scale, turn = draws.log_uniform(0.3, 2.2, n) * (256 / side), draws.uniform(0, 2 * math.pi, n)
    style[:, Style.TEXTURE] = draws.integers(NUM_SMOOTH, NUM_TEXTURES, n).float()
    style[:, Style.TURN_X], style[:, Style.TURN_Y] = scale * turn.cos(), scale * turn.sin()
    style[:, Style.SHIFT_U : Style.SHIFT_V + 1] = draws.uniform(0, 256, n, 2)
    style[:, Style.STRENGTH] = draws.uniform(0.1, 0.9, n)
    style[:, Style.SMOOTH] = draws.integers(0, NUM_SMOOTH, n).float()
    style[:, Style.SMOOTH_SCALE] = draws.log_uniform(0.1, 0.7, n) * (256 / side)
    style[:, Style.SMOOTH_STRENGTH] = draws.uniform(0, 0.5, n)
    style[:, Style.GRADIENT_X : Style.GRADIENT_Y + 1] = draws.normal(n, 2) * draws.choose((0.5, 0.5), n, 1) * 0.7
    return style


def _varied(draws: RandomDraws, style_NC: torch.Tensor, amount: float | torch.Tensor) -> torch.Tensor:
    """Vary styles: shift their colours together by about `amount`, and move to another place in the texture."""
    n = len(style_NC)
    style = style_NC.clone()
    shift = amount * (draws.normal(n, 1) + 0.5 * draws.normal(n, 3))
    style[:, Style.DARK_R : Style.LIGHT_B + 1] += torch.cat([shift, shift], 1)
    style[:, Style.SHIFT_U : Style.SHIFT_V + 1] += draws.uniform(0, 256, n, 2)
    return style


def _related_styles(
    draws: RandomDraws, style_NC: torch.Tensor, palette_BK3: torch.Tensor, scene_N: torch.Tensor, side: int
) -> torch.Tensor:
    """Vary the styles of most rows, half of these with a new texture, and draw new styles for the other rows."""
    n = len(style_NC)
    fresh = _random_styles(draws, palette_BK3, scene_N, side)
    near = _varied(draws, style_NC, 0.13)
    retextured = fresh.clone()
    retextured[:, : Style.LIGHT_B + 1] = near[:, : Style.LIGHT_B + 1]
    near = torch.where(draws.chance(0.5, n, 1), near, retextured)
    return torch.where(draws.chance(RELATED, n, 1), near, fresh)


def _with_tilt(draws: RandomDraws, style_PC: torch.Tensor, region_P: torch.Tensor) -> torch.Tensor:
    """Give one in three regions of the background a texture in perspective, mostly towards a horizon above."""
    n = len(style_PC)
    style = style_PC.clone()
    tilted = draws.chance(0.35, n) & region_P
    turn, rate = draws.normal(n) * 0.3, draws.uniform(0.4, 0.85, n)
    style[:, Style.TILT_X] = torch.where(tilted, turn.sin() * rate, 0.0)
    style[:, Style.TILT_Y] = torch.where(tilted, turn.cos() * rate, 0.0)
    return style
