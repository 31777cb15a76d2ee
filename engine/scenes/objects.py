"""Objects: the table of everything that is rendered, one row per object, for all scenes of a batch.

Shape suffixes: N objects, A angles of an outline, M capsules of a chain, K sites of a split, J cells of a split.
"""

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch

NUM_ANGLES = 128
"""Angles of an outline."""
NUM_CAPSULES = 14
"""Capsules of a chain."""
NUM_SITES = 12
"""Sites of a split by sites."""
NUM_CELLS = 64
"""Cells of a split by cells."""
NUM_FIELDS = 5
"""Scalar fields that bands cut: u, v, distance from the centre, distance from the border, angle / 2 pi."""


class Shape(IntEnum):
    """Families of shapes; each is one function in shapes.py."""

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
    """Labels of an object that look alike."""

    NOT = 0
    """None."""
    BUT_GROUND = 1
    """All but label 0, which lies between them, like windows of a wall."""
    ALTERNATE = 2
    """All even labels, and all odd labels, like stripes."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Table of objects. Local coordinates u, v are pixels from the centre, turned by -angle, divided by the radius."""

    scene_N: torch.Tensor
    """Scene of each object, int64. Rows are sorted by scene and, within a scene, from back to front."""
    shape_N: torch.Tensor
    """Family of shape, an int64 `Shape`."""
    split_N: torch.Tensor
    """Way to cut into parts, an int64 `Split`."""
    centre_N2: torch.Tensor
    """Centre x, y, in pixels."""
    radius_N: torch.Tensor
    """Radius, in pixels."""
    extent_N: torch.Tensor
    """Farthest reach from the centre along either axis, shadow included, in pixels."""
    angle_N: torch.Tensor
    """Rotation, in radians."""
    outline_NA: torch.Tensor
    """For OUTLINE: distance of the border from the centre by angle, in local units, at most 1."""
    hole_N3: torch.Tensor
    """For OUTLINE: x, y and radius of a round hole, in local units; radius 0 is none."""
    capsules_NM6: torch.Tensor
    """For CHAIN: x, y of both ends and the radii there, in local units; a negative radius is an unused capsule."""
    capsule_label_NM: torch.Tensor
    """For CHAIN: part of each capsule, int64."""
    quad_N5: torch.Tensor
    """For QUAD: half width, half height, corner radius and the two perspective terms, in local units."""
    warp_N4: torch.Tensor
    """Bend of u, v before a split: amplitude, frequency and two phases; for EVERYTHING, of a noise warp."""
    bands_N2F: torch.Tensor
    """For BANDS: weight of each of the five fields in the two coordinates that are cut at whole numbers."""
    band_N8: torch.Tensor
    """For BANDS: offset, number of bands and margin on either side of a cell, for both coordinates; 2 of padding."""
    sites_NK3: torch.Tensor
    """For SITES: x, y and weight; a site wins where weight - squared distance is largest. Weight -1e6: unused."""
    site_floor_N: torch.Tensor
    """For SITES: value that a site must exceed; elsewhere the ground (label 0) stays."""
    cell_N3: torch.Tensor
    """For CELLS: columns and rows of the grid over -1 to 1; the gap between cells (label 0), in cells, 0: none."""
    cells_NJ2: torch.Tensor
    """For CELLS: point of each cell, x, y in [0, 1] of its grid square, row after row."""
    noise_N6: torch.Tensor
    """For NOISE: atlas layer, atlas pixels per local unit, offset u, v and the two cuts."""
    subcut_N6: torch.Tensor
    """Second split: direction x, y in cuts per local unit, phase, bend amplitude and frequency, fraction of half 1."""
    subsplit_N: torch.Tensor
    """Labels that are split a second time, an int64 bit field (bit k: label k)."""
    labels_N: torch.Tensor
    """Number of labels that the split can give, int64."""
    kin_N: torch.Tensor
    """Kin of each object, int64; objects of one kin look alike (repeated instances)."""
    alike_N: torch.Tensor
    """Labels that look alike, an int64 `Alike`."""
    whole_N: torch.Tensor
    """Whole of each object, int64; objects with the same number are parts of one whole."""
    region_span_N: torch.Tensor
    """For a background: successive labels that form a whole, int64; 0: all labels belong to the object's whole."""
    light_N6: torch.Tensor
    """Shading: slope along u, v; strength and width (local units) of the rounded rim; border factor and width (px)."""
    shadow_N4: torch.Tensor
    """Cast shadow: offset x, y in pixels (whole numbers), darkness 0 to 1, softness in pixels."""

    def __len__(self) -> int:
        return len(self.scene_N)

    def rows(self, index: slice | torch.Tensor) -> "Objects":
        """Select rows."""
        return Objects(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device) -> "Objects":
        """Copy the table to a device."""
        return Objects(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def tree(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return int64 scene, part and whole of every leaf: two leaves per label, label after label, row after row."""
        owner_P, whole_P = self.parts()
        part_P = torch.arange(len(owner_P))
        return self.scene_N[owner_P].repeat_interleave(2), part_P.repeat_interleave(2), whole_P.repeat_interleave(2)

    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return int64 row and whole of every part: label after label, row after row."""
        owner_P = torch.repeat_interleave(torch.arange(len(self)), self.labels_N)
        label_P = torch.arange(len(owner_P)) - (self.labels_N.cumsum(0) - self.labels_N)[owner_P]
        span_P = self.region_span_N[owner_P]
        # Regions of the background are wholes of their own, numbered after the objects.
        region_P = len(self) + torch.arange(len(owner_P)) - label_P % span_P.clamp_min(1)
        return owner_P, torch.where(span_P > 0, region_P, self.whole_N[owner_P])

    def with_fields(self, **changes: torch.Tensor) -> "Objects":
        """Replace columns."""
        return replace(self, **changes)


def join(tables: list[Objects]) -> Objects:
    """Join tables, one after the other."""
    return Objects(**{f.name: torch.cat([getattr(t, f.name) for t in tables]) for f in fields(Objects)})


def plain_objects(scene_N: torch.Tensor, shape: Shape) -> Objects:
    """Make rows of one shape at the origin, without parts, shading or shadow; the caller replaces what it needs."""
    n = len(scene_N)

    def fill(*shape_: int, value: float = 0.0) -> torch.Tensor:
        return torch.full((n, *shape_), value, dtype=torch.float32)

    def whole(*shape_: int, value: int = 0) -> torch.Tensor:
        return torch.full((n, *shape_), value, dtype=torch.int64)

    # Fill the columns whose neutral value differs by entry
    capsules, sites, band, light, subcut = (
        fill(NUM_CAPSULES, 6, value=-1), fill(NUM_SITES, 3, value=-1e6), fill(8), fill(6), fill(6),
    )  # fmt: skip
    band[:, 1] = band[:, 4] = 1
    light[:, 3] = light[:, 4] = 1

    # Fill the table
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
