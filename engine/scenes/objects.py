"""Objects: the table of everything that is rendered, one row per object, for all scenes of a batch.

An object is divided into parts by its split. A part may be divided in two; each half, or an undivided part, is a leaf,
the smallest region of a scene.

Shape suffixes: N objects, A angles of an outline, M capsules of a chain, K sites of a split, J cells of a split.
"""

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch

NUM_ANGLES = 128
"""Number of angles at which an outline is given."""
NUM_CAPSULES = 14
"""Number of capsules of a chain."""
NUM_SITES = 12
"""Largest number of sites of an object with `Split.SITES`."""
NUM_CELLS = 64
"""Largest number of cells of an object with `Split.CELLS`."""
NUM_FIELDS = 5
"""Number of fields that bands divide: u, v, distance from the centre, depth inside the border, angle / 2 pi."""


class Shape(IntEnum):
    """Family of an object's shape: the whole scene, an outline by angle, a chain of capsules, or a quad."""

    EVERYTHING = 0
    OUTLINE = 1
    CHAIN = 2
    QUAD = 3


class Split(IntEnum):
    """Way to divide an object into parts. NONE leaves the object whole; parts.py has a function for each other way."""

    NONE = 0
    BANDS = 1
    SITES = 2
    NOISE = 3
    CELLS = 4


class Alike(IntEnum):
    """Rule that decides which labels (parts) of an object look alike."""

    NOT = 0
    """No two labels look alike."""
    BUT_GROUND = 1
    """All labels but 0 look alike; label 0 lies between them, like the wall between windows."""
    ALTERNATE = 2
    """All even labels look alike, and all odd labels look alike, like stripes."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Table of objects. Local coordinates u, v are pixels from the centre, turned by -angle, divided by the radius."""

    scene_N: torch.Tensor
    """Scene of each object, int64. Rows are sorted by scene and, within a scene, from back to front."""
    shape_N: torch.Tensor
    """Family of each object's shape, an int64 `Shape`."""
    split_N: torch.Tensor
    """Way to divide each object into parts, an int64 `Split`."""
    centre_N2: torch.Tensor
    """Centre (x, y) of each object, in pixels."""
    radius_N: torch.Tensor
    """Radius of each object, in pixels; the unit of its local coordinates."""
    extent_N: torch.Tensor
    """Largest distance from the centre along either axis that object and shadow reach, in pixels."""
    angle_N: torch.Tensor
    """Rotation of each object, in radians."""
    outline_NA: torch.Tensor
    """For shape OUTLINE: distance of the border from the centre by angle, in local units, at most 1."""
    hole_N3: torch.Tensor
    """For shape OUTLINE: x, y and radius of a round hole, in local units; radius 0: no hole."""
    capsules_NM6: torch.Tensor
    """For shape CHAIN: x, y of both ends and both radii, in local units; a negative radius marks an unused capsule."""
    capsule_label_NM: torch.Tensor
    """For shape CHAIN: label (part) of each capsule, int64."""
    quad_N5: torch.Tensor
    """For shape QUAD: half width, half height, corner radius and two perspective terms, in local units."""
    warp_N4: torch.Tensor
    """Bend of u, v before the split: amplitude, frequency, two phases; noise for EVERYTHING, else sine waves."""
    bands_N2F: torch.Tensor
    """For split BANDS: weights of the `NUM_FIELDS` fields in two coordinates, divided at whole numbers."""
    band_N8: torch.Tensor
    """For split BANDS: offset, number of bands and margin beside a band, for two coordinates; then 2 unused values."""
    sites_NK3: torch.Tensor
    """For split SITES: x, y, weight; a site wins where weight - squared distance is largest. Weight -1e6: unused."""
    site_floor_N: torch.Tensor
    """For split SITES: value that a site must exceed, else the label is 0; -1e5: no such value."""
    cell_N3: torch.Tensor
    """For split CELLS: columns and rows of a grid over -1 to 1; gap between cells (label 0), in cells, 0: no gap."""
    cells_NJ2: torch.Tensor
    """For split CELLS: point of each cell, as x, y in [0, 1] within its grid square, row after row."""
    noise_N6: torch.Tensor
    """For split NOISE: atlas layer, atlas pixels per local unit, offset u, v, and two levels that divide parts."""
    subcut_N6: torch.Tensor
    """Stripes that halve parts: x, y in stripes per unit, phase, bend amplitude, bend frequency, fraction of half 1."""
    subsplit_N: torch.Tensor
    """Labels (parts) that are divided in two, as an int64 bit field; bit k stands for label k."""
    labels_N: torch.Tensor
    """Number of labels (parts) of each object, int64, whether visible or not."""
    kin_N: torch.Tensor
    """Number of each object's kin, int64; objects of one kin look alike, such as repeated objects."""
    alike_N: torch.Tensor
    """Rule that decides which labels of each object look alike, an int64 `Alike`."""
    whole_N: torch.Tensor
    """Number of each object's whole, int64; objects with the same number are parts of one whole."""
    region_span_N: torch.Tensor
    """Number of successive labels of a background that form a whole, int64; 0: all belong to the object's whole."""
    light_N6: torch.Tensor
    """Shading: slopes along u, v, strength and width (local units) of the rim, factor and width (px) of the contour."""
    shadow_N4: torch.Tensor
    """Shadow that each object casts: offset x, y in whole pixels, darkness in [0, 1], softness in pixels."""

    def __len__(self) -> int:
        return len(self.scene_N)

    def rows(self, index: slice | torch.Tensor) -> "Objects":
        """Select rows of the table."""
        return Objects(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device) -> "Objects":
        """Copy the table to a device."""
        return Objects(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def tree(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return scene, part and whole of every leaf (smallest region), int64 each.

        Every label (part) has two leaves. Leaves are sorted by row of the table and, within a row, by label.
        """
        owner_P, whole_P = self.parts()
        part_P = torch.arange(len(owner_P))
        return self.scene_N[owner_P].repeat_interleave(2), part_P.repeat_interleave(2), whole_P.repeat_interleave(2)

    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the row of the table and the whole of every part, int64 each.

        Parts are sorted by row and, within a row, by label.
        """
        owner_P = torch.repeat_interleave(torch.arange(len(self)), self.labels_N)
        label_P = torch.arange(len(owner_P)) - (self.labels_N.cumsum(0) - self.labels_N)[owner_P]
        span_P = self.region_span_N[owner_P]
        # Regions of the background are wholes of their own, numbered after the objects.
        region_P = len(self) + torch.arange(len(owner_P)) - label_P % span_P.clamp_min(1)
        return owner_P, torch.where(span_P > 0, region_P, self.whole_N[owner_P])

    def with_fields(self, **changes: torch.Tensor) -> "Objects":
        """Return a table in which the columns named in `changes` are replaced."""
        return replace(self, **changes)


def join(tables: list[Objects]) -> Objects:
    """Join the rows of several tables, one table after the other."""
    return Objects(**{f.name: torch.cat([getattr(t, f.name) for t in tables]) for f in fields(Objects)})


def plain_objects(scene_N: torch.Tensor, shape: Shape) -> Objects:
    """Make objects of one shape at the origin, without parts, shading or shadow; the caller replaces these defaults."""
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
