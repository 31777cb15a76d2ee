"""Objects: the table of everything that is painted, one row an object, of all scenes of a batch together.

Shape suffixes: N objects, A angles of an outline, M capsules of a chain, K sites of a split, J cells of a split.
"""

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch

NUM_ANGLES = 128
NUM_CAPSULES = 14
NUM_SITES = 12
NUM_CELLS = 64
NUM_FIELDS = 5
"""The scalar fields that bands cut: u, v, distance from the centre, distance from the border, angle / 2 pi."""


class Shape(IntEnum):
    """Families of outlines; each is one function in shapes.py."""

    EVERYTHING = 0
    OUTLINE = 1
    CHAIN = 2
    QUAD = 3


class Split(IntEnum):
    """Families of ways to cut an object into parts; each is one function in parts.py."""

    NONE = 0
    BANDS = 1
    SITES = 2
    NOISE = 3
    CELLS = 4


class Alike(IntEnum):
    """Which labels of an object look alike."""

    NOT = 0
    BUT_GROUND = 1
    """All but label 0, which lies between them: windows of a wall."""
    ALTERNATE = 2
    """The even ones and the odd ones: stripes."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """One row per object. Local coordinates u, v: pixels from the centre, turned by -angle, divided by the radius."""

    scene_N: torch.Tensor
    """int64; the rows are sorted by scene and, within a scene, from back to front."""
    shape_N: torch.Tensor
    """int64 Shape."""
    split_N: torch.Tensor
    """int64 Split."""
    centre_N2: torch.Tensor
    """x, y in pixels."""
    radius_N: torch.Tensor
    """Pixels."""
    extent_N: torch.Tensor
    """Pixels from the centre beyond which nothing of the object lies, along either axis."""
    angle_N: torch.Tensor
    """Radians."""
    outline_NA: torch.Tensor
    """OUTLINE: distance of the border from the centre by angle, local units, at most 1."""
    hole_N3: torch.Tensor
    """OUTLINE: x, y and radius of a round hole, local units; radius 0 is none."""
    capsules_NM6: torch.Tensor
    """CHAIN: x, y of both ends and the radius at both, local units; a negative radius is an unused capsule."""
    capsule_label_NM: torch.Tensor
    """CHAIN: int64 part of each capsule."""
    quad_N5: torch.Tensor
    """QUAD: half width, half height, corner radius and the two perspective terms, local units."""
    warp_N4: torch.Tensor
    """Bends u, v before a split: amplitude, frequency, and two phases; for EVERYTHING the amplitude of a noise warp."""
    bands_N2F: torch.Tensor
    """BANDS: how much each of the five fields counts in the two coordinates that are cut at whole numbers."""
    band_N8: torch.Tensor
    """BANDS: offset, number of bands, margin on either side of a cell, for the two coordinates; then two of padding."""
    sites_NK3: torch.Tensor
    """SITES: x, y and weight; a site wins where weight - squared distance is largest. Weight -1e6: unused."""
    site_floor_N: torch.Tensor
    """SITES: a site must beat this value, or the ground (label 0) stays."""
    cell_N3: torch.Tensor
    """CELLS: columns and rows of the grid over -1 to 1, and the gap between cells (label 0; 0: no gap), in cells."""
    cells_NJ2: torch.Tensor
    """CELLS: the point of each cell, x, y in 0 to 1 of its grid square, row after row."""
    noise_N6: torch.Tensor
    """NOISE: atlas layer, atlas pixels per local unit, offset u, v and the two cuts."""
    subcut_N6: torch.Tensor
    """Second split: direction x, y in cuts per local unit, phase, bend amplitude, bend frequency, share of label 1."""
    subsplit_N: torch.Tensor
    """int64 bit field: bit k is set where label k is split a second time."""
    labels_N: torch.Tensor
    """int64 number of labels the split can give."""
    kin_N: torch.Tensor
    """int64; objects of one kin look alike (repeated instances)."""
    alike_N: torch.Tensor
    """int64 Alike."""
    whole_N: torch.Tensor
    """int64; objects with the same number are parts of one whole."""
    region_span_N: torch.Tensor
    """int64; background: so many labels after each other are a whole; 0: all labels belong to the object's whole."""
    light_N6: torch.Tensor
    """Shading: slope along u, v; strength and width (local units) of the rounded rim; border factor and width (px)."""
    shadow_N4: torch.Tensor
    """Cast shadow: offset x, y in pixels (whole numbers), darkness 0 to 1, softness in pixels."""

    def __len__(self) -> int:
        return len(self.scene_N)

    def rows(self, index: slice | torch.Tensor) -> "Objects":
        return Objects(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device) -> "Objects":
        return Objects(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def tree(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """int64 scene, part and whole of every leaf: two leaves a label, label after label, row after row."""
        owner_P, whole_P = self.parts()
        part_P = torch.arange(len(owner_P))
        return self.scene_N[owner_P].repeat_interleave(2), part_P.repeat_interleave(2), whole_P.repeat_interleave(2)

    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 row and whole of every part: label after label, row after row."""
        owner_P = torch.repeat_interleave(torch.arange(len(self)), self.labels_N)
        label_P = torch.arange(len(owner_P)) - (self.labels_N.cumsum(0) - self.labels_N)[owner_P]
        span_P = self.region_span_N[owner_P]
        # Regions of the background are wholes of their own, numbered after the objects.
        region_P = len(self) + torch.arange(len(owner_P)) - label_P % span_P.clamp_min(1)
        return owner_P, torch.where(span_P > 0, region_P, self.whole_N[owner_P])

    def with_fields(self, **changes: torch.Tensor) -> "Objects":
        return replace(self, **changes)


def join(tables: list[Objects]) -> Objects:
    """All rows, table after table."""
    return Objects(**{f.name: torch.cat([getattr(t, f.name) for t in tables]) for f in fields(Objects)})


def plain_objects(scene_N: torch.Tensor, shape: Shape) -> Objects:
    """Rows of one shape that have no parts, shading or shadow yet, at the origin; the caller replaces what it needs."""
    n = len(scene_N)

    def fill(*shape_: int, value: float = 0.0) -> torch.Tensor:
        return torch.full((n, *shape_), value, dtype=torch.float32)

    def whole(*shape_: int, value: int = 0) -> torch.Tensor:
        return torch.full((n, *shape_), value, dtype=torch.int64)

    capsules, sites, band, light, subcut = (
        fill(NUM_CAPSULES, 6, value=-1), fill(NUM_SITES, 3, value=-1e6), fill(8), fill(6), fill(6),
    )  # fmt: skip
    band[:, 1] = band[:, 4] = 1
    light[:, 3] = light[:, 4] = 1
    return Objects(
        scene_N=scene_N,
        shape_N=whole(value=int(shape)),
        split_N=whole(value=int(Split.NONE)),
        centre_N2=fill(2),
        radius_N=fill(value=1),
        extent_N=fill(value=1),
        angle_N=fill(),
        outline_NA=fill(NUM_ANGLES, value=1),
        hole_N3=fill(3),
        capsules_NM6=capsules,
        capsule_label_NM=whole(NUM_CAPSULES),
        quad_N5=fill(5),
        warp_N4=fill(4),
        bands_N2F=fill(2, NUM_FIELDS),
        band_N8=band,
        sites_NK3=sites,
        site_floor_N=fill(value=-1e5),
        cell_N3=fill(3, value=1),
        cells_NJ2=fill(NUM_CELLS, 2),
        noise_N6=fill(6),
        subcut_N6=subcut,
        subsplit_N=whole(),
        labels_N=whole(value=1),
        kin_N=torch.arange(n),
        alike_N=whole(value=int(Alike.NOT)),
        whole_N=torch.arange(n),
        region_span_N=whole(),
        light_N6=light,
        shadow_N4=fill(4),
    )
