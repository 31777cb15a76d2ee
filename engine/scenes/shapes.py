"""Shapes: the depth of each pixel inside an object, and random outlines.

Depth is in local units (the object's radius is 1): positive inside, 0 on the border, negative outside. Near the border
the depth is close to the true distance.

Shape suffixes: N objects, W side of their window in pixels, A angles of an outline, M capsules of a chain.
"""

import math

import torch

from engine.scenes.objects import NUM_ANGLES, NUM_CAPSULES, Objects, Shape
from engine.scenes.random_draws import RandomDraws


def depth(
    objects: Objects, shape: Shape, u_NWW: torch.Tensor, v_NWW: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute the depth of each pixel in objects of one shape, [N, W, W].

    For `Shape.CHAIN`, the second returned value is the part of each pixel, int32 [N, W, W]; None for other shapes.
    """
    if shape is Shape.EVERYTHING:
        return torch.ones_like(u_NWW), None
    if shape is Shape.OUTLINE:
        return _outline_depth(objects, u_NWW, v_NWW), None
    if shape is Shape.QUAD:
        return _quad_depth(objects, u_NWW, v_NWW), None
    return _chain_depth(objects, u_NWW, v_NWW)


def _outline_depth(objects: Objects, u_NWW: torch.Tensor, v_NWW: torch.Tensor) -> torch.Tensor:
    """Compute the depth inside an outline (border distance by angle) with a round hole."""
    turn = torch.atan2(v_NWW, u_NWW).mul_(NUM_ANGLES / (2 * math.pi)).add_(NUM_ANGLES)
    low = turn.floor()
    index = low.int()
    first_N11 = (torch.arange(len(objects), dtype=torch.int32, device=u_NWW.device) * NUM_ANGLES)[:, None, None]
    flat = objects.outline_NA.reshape(-1)
    here = flat.index_select(0, (first_N11 + index % NUM_ANGLES).view(-1)).view_as(turn)
    following = flat.index_select(0, (first_N11 + (index + 1) % NUM_ANGLES).view(-1)).view_as(turn)
    inside = torch.lerp(here, following, turn.sub_(low)).sub_(torch.hypot(u_NWW, v_NWW))
    x, y, r = objects.hole_N3[:, :, None, None].unbind(1)
    beyond_hole = torch.where(r > 0, torch.hypot(u_NWW - x, v_NWW - y) - r, 9.0)
    return torch.minimum(inside, beyond_hole)


def _quad_depth(objects: Objects, u_NWW: torch.Tensor, v_NWW: torch.Tensor) -> torch.Tensor:
    """Compute the depth inside a rectangle with rounded corners."""
    half_w, half_h, corner = objects.quad_N5[:, :3, None, None].unbind(1)
    x, y = u_NWW.abs() - half_w + corner, v_NWW.abs() - half_h + corner
    outside = torch.hypot(x.clamp_min(0), y.clamp_min(0))
    return corner - outside - torch.maximum(x, y).clamp_max(0)


def straighten(objects: Objects, u_NWW: torch.Tensor, v_NWW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Project local coordinates u, v onto the plane of a tilted quad."""
    tilt_x, tilt_y = objects.quad_N5[:, 3, None, None], objects.quad_N5[:, 4, None, None]
    scale = (1 + tilt_x * u_NWW + tilt_y * v_NWW).clamp_min_(0.2).reciprocal_()
    return u_NWW * scale, v_NWW * scale


def _chain_depth(objects: Objects, u_NWW: torch.Tensor, v_NWW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute depth and label inside a chain of tapered capsules; a pixel has the label of its deepest capsule."""
    deepest = torch.full_like(u_NWW, -9.0)
    label = torch.zeros_like(u_NWW, dtype=torch.int32)
    label_NM = objects.capsule_label_NM.int()
    for m in range(NUM_CAPSULES):
        ax, ay, bx, by, ra, rb = objects.capsules_NM6[:, m, :, None, None].unbind(1)
        dx, dy = bx - ax, by - ay
        scale = 1 / (dx * dx + dy * dy).clamp_min(1e-6)
        along = (u_NWW * (dx * scale) + v_NWW * (dy * scale) - (ax * dx + ay * dy) * scale).clamp_(0, 1)
        away = torch.hypot(u_NWW - torch.addcmul(ax, along, dx), v_NWW - torch.addcmul(ay, along, dy))
        inside = torch.addcmul(ra, along, rb - ra).sub_(away)
        label = torch.where(inside > deepest, label_NM[:, m, None, None], label)
        deepest = torch.maximum(deepest, inside)
    return deepest, label


def outlines(draws: RandomDraws, count: int) -> torch.Tensor:
    """Draw random outlines: blobs, superellipses, polygons, plant leaves and stars.

    Returns:
        Distance of the border from the centre at A angles, float32 [count, A]; the largest distance of an outline
        is 1.
    """
    family = draws.choose((0.36, 0.2, 0.22, 0.22), count)
    options = torch.stack(
        [_blobs(draws, count), _superellipses(draws, count), _polygons(draws, count), _superformulas(draws, count)]
    )
    outline_NA = options[family, torch.arange(count)]
    stretch_N1 = draws.log_uniform(0.45, 1.0, count, 1)
    outline_NA = torch.where(draws.chance(0.5, count, 1), _stretched(outline_NA, stretch_N1), outline_NA)
    outline_NA = outline_NA * _roughness(draws, count)
    return outline_NA / outline_NA.amax(1, keepdim=True)


def _roughness(draws: RandomDraws, count: int) -> torch.Tensor:
    """Draw random factors near 1, [count, A], that roughen three in ten outlines like foliage, fur or broken edges."""
    order = torch.arange(3, NUM_ANGLES // 2, dtype=torch.float32)
    falloff_NF = order ** -draws.uniform(0.4, 1.4, count, 1)
    phase = order[:, None] * _angles()
    jitter_NA = (draws.normal(count, len(order)) * falloff_NF) @ phase.cos()
    jitter_NA = jitter_NA + (draws.normal(count, len(order)) * falloff_NF) @ phase.sin()
    size_N1 = draws.log_uniform(0.02, 0.15, count, 1) * draws.chance(0.3, count, 1)
    return (1 + size_N1 * jitter_NA / falloff_NF.norm(dim=1, keepdim=True)).clamp(0.5, 1.5)


def _angles() -> torch.Tensor:
    """Return the angles of an outline, in radians."""
    return torch.arange(NUM_ANGLES) * (2 * math.pi / NUM_ANGLES)


def _stretched(outline_NA: torch.Tensor, stretch_N1: torch.Tensor) -> torch.Tensor:
    """Multiply outlines, as functions of the angle, by the polar form of an ellipse with this ratio of axes."""
    angle = _angles()
    return outline_NA * torch.hypot(angle.cos(), angle.sin() / stretch_N1).reciprocal()


def _blobs(draws: RandomDraws, count: int) -> torch.Tensor:
    """Draw random blobs: circles with a few waves of falling amplitude."""
    order = torch.arange(2, 10, dtype=torch.float32)
    falloff_N1 = draws.uniform(0.8, 2.2, count, 1)
    size_NK = draws.normal(count, len(order)) * draws.uniform(0.02, 0.4, count, 1) / (order - 1) ** falloff_N1
    phase_NK = draws.uniform(0, 2 * math.pi, count, len(order))
    waves_NKA = torch.cos(order[:, None] * _angles() + phase_NK[:, :, None])
    return (1 + (size_NK[:, :, None] * waves_NKA).sum(1)).clamp(0.25, 2)


def _superellipses(draws: RandomDraws, count: int) -> torch.Tensor:
    """Draw random superellipses, from diamonds to rounded rectangles."""
    power_N1, ratio_N1 = draws.log_uniform(1.2, 8, count, 1), draws.log_uniform(0.3, 1, count, 1)
    angle = _angles()
    across, up = angle.cos().abs() ** power_N1, (angle.sin().abs() / ratio_N1) ** power_N1
    return (across + up) ** (-1 / power_N1)


def _polygons(draws: RandomDraws, count: int) -> torch.Tensor:
    """Draw random convex polygons of 3 to 8 sides; a soft minimum over their sides rounds the corners."""
    lines = 8
    sides_N1 = draws.integers(3, lines + 1, count, 1)
    turn_NK = torch.arange(lines) / sides_N1 + draws.uniform(-0.25, 0.25, count, lines) / sides_N1
    away_NK = draws.uniform(0.6, 1.0, count, lines)
    facing_NKA = torch.cos(_angles() - 2 * math.pi * turn_NK[:, :, None])
    inverse_NKA = facing_NKA.clamp_min(0.05) / away_NK[:, :, None]
    inverse_NKA = inverse_NKA.masked_fill((torch.arange(lines) >= sides_N1)[:, :, None], 0.0)
    sharp_N11 = draws.log_uniform(8, 60, count, 1, 1)
    return (inverse_NKA.pow(sharp_N11).sum(1).pow(-1 / sharp_N11[:, :, 0])).clamp(0.2, 2.2)


def _superformulas(draws: RandomDraws, count: int) -> torch.Tensor:
    """Draw random outlines of leaves, flowers and stars by the superformula (Gielis 2003)."""
    spikes_N1 = draws.integers(2, 9, count, 1).float()
    n1_N1, n2_N1 = draws.log_uniform(0.4, 3, count, 1), draws.log_uniform(0.6, 4, count, 1)
    quarter = spikes_N1 * _angles() / 4
    spread = quarter.cos().abs() ** n2_N1 + quarter.sin().abs() ** n2_N1
    outline_NA = spread.clamp_min(1e-3) ** (-1 / n1_N1)
    return (outline_NA / outline_NA.amax(1, keepdim=True)).clamp_min(0.2)


def cell_outlines(draws: RandomDraws, n: int) -> torch.Tensor:
    """Draw `n` random outlines like those of cell nuclei: ovals with one or two dents."""
    angle = _angles()
    ratio = draws.uniform(0.55, 1.0, n, 1)
    oval = torch.hypot(angle.cos(), angle.sin() / ratio).reciprocal()
    dents = draws.uniform(0, 0.12, n, 1) * torch.cos(3 * angle + draws.uniform(0, 6.3, n, 1))
    dents = dents + draws.uniform(0, 0.1, n, 1) * torch.cos(2 * angle + draws.uniform(0, 6.3, n, 1))
    outline_NA = oval * (1 + dents)
    return outline_NA / outline_NA.amax(1, keepdim=True)


def creatures(draws: RandomDraws, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw random creatures as capsules [count, M, 6] with labels: body 0, head 1, up to four limbs 2 to 5, tail 6."""
    # Body
    capsules = torch.full((count, NUM_CAPSULES, 6), -1.0)
    labels = torch.zeros(count, NUM_CAPSULES, dtype=torch.int64)
    half, girth = draws.uniform(0.1, 0.38, count), draws.uniform(0.16, 0.36, count)
    zero = torch.zeros(count)
    capsules[:, 0] = torch.stack([-half, zero, half, zero, girth * draws.uniform(0.6, 1.1, count), girth], 1)

    # Head
    head, lift = draws.uniform(0.12, 0.24, count), draws.normal(count) * 0.12
    head_x = half + girth * draws.uniform(0.7, 1.1, count)
    snout = head * draws.uniform(0.5, 1, count)
    capsules[:, 1] = torch.stack([head_x, lift, head_x + 0.3 * head, lift, head, snout], 1)
    labels[:, 1] = 1

    # Limbs
    for limb in range(4):
        side = (-1.0) ** limb
        thick = draws.uniform(0.035, 0.12, count)
        root_x, knee_x = draws.uniform(-1, 1, count) * half, draws.normal(count) * 0.12
        knee_y = side * draws.uniform(0.35, 0.6, count)
        foot_x, foot_y = knee_x + draws.normal(count) * 0.15, side * draws.uniform(0.6, 0.9, count)
        upper = torch.stack([root_x, zero, root_x + knee_x, knee_y, thick * 1.3, thick], 1)
        lower = torch.stack([root_x + knee_x, knee_y, root_x + foot_x, foot_y, thick, thick * 0.7], 1)
        used = draws.chance(0.65, count)
        capsules[:, 2 + 2 * limb] = torch.where(used[:, None], upper, -1.0)
        capsules[:, 3 + 2 * limb] = torch.where(used[:, None], lower, -1.0)
        labels[:, 2 + 2 * limb : 4 + 2 * limb] = 2 + limb

    # Tail
    thin, bend = draws.uniform(0.02, 0.07, count), draws.normal(count) * 0.2
    start = -half - 0.7 * girth
    tail = torch.stack([start, zero, start * 0.5 - 0.4, bend, thin * 2, thin], 1)
    tip = torch.stack([start * 0.5 - 0.4, bend, torch.full((count,), -0.9), bend * 2, thin, thin * 0.5], 1)
    tailed = draws.chance(0.45, count)[:, None]
    capsules[:, 10], capsules[:, 11] = torch.where(tailed, tail, -1.0), torch.where(tailed, tip, -1.0)
    labels[:, 10:12] = 6
    return capsules, labels


def wires(draws: RandomDraws, count: int) -> torch.Tensor:
    """Draw random wires as capsules [count, M, 6] along a curve; some wires taper, and one in three has a branch."""
    half = NUM_CAPSULES // 2
    bend = draws.choose((0.3, 0.4, 0.3), count)[:, None] * 0.25
    branched = draws.chance(0.35, count)[:, None]
    heading = (draws.normal(count, NUM_CAPSULES) * bend).cumsum(1)
    heading[:, half:] += branched * draws.uniform(0.5, 1.3, count, 1)
    step = torch.stack([heading.cos(), heading.sin()], 2)
    trunk = step[:, :half].cumsum(1)
    # the second half continues from the trunk's end or, as a branch, from its middle
    fork = torch.where(branched, trunk[:, half // 2], trunk[:, -1])
    ends = torch.cat([trunk, fork[:, None] + step[:, half:].cumsum(1)], 1)
    starts = ends - step
    middle = (ends.amax(1, keepdim=True) + ends.amin(1, keepdim=True)) / 2
    reach = torch.cat([starts - middle, ends - middle], 1).norm(dim=2).amax(1)[:, None, None] * 1.12
    thick, taper = draws.log_uniform(0.008, 0.09, count, 1), draws.uniform(0.3, 1.2, count, 1)
    position = torch.arange(NUM_CAPSULES + 1) / NUM_CAPSULES
    radius = thick * (1 + (taper - 1) * position)
    radii = torch.stack([radius[:, :-1], radius[:, 1:]], 2)
    return torch.cat([(starts - middle) / reach, (ends - middle) / reach, radii], 2)


def glyphs(draws: RandomDraws, count: int) -> torch.Tensor:
    """Draw random letter-like signs as capsules [count, M, 6]: 2 to 6 linked strokes between nodes of a 3 x 3 grid."""
    strokes = 6
    nodes = draws.integers(0, 3, count, strokes + 1, 2).float() * torch.tensor([0.5, 0.75]) - torch.tensor([0.5, 0.75])
    thick = draws.uniform(0.06, 0.17, count)[:, None, None].expand(count, strokes, 2)
    capsules = torch.full((count, NUM_CAPSULES, 6), -1.0)
    capsules[:, :strokes] = torch.cat([nodes[:, :-1], nodes[:, 1:], thick], 2)
    used = torch.arange(strokes) < draws.integers(2, strokes + 1, count, 1)
    capsules[:, :strokes] = torch.where(used[:, :, None], capsules[:, :strokes], -1.0)
    return capsules
