"""Batch of scenes with exact, nested masks, and the numbering of visible leaves, parts and wholes.

A leaf is a smallest region of a scene. A part consists of leaves, and a whole (a whole object) consists of parts.

Shape suffixes: B scenes, H W rows and columns, L leaves of the fullest scene, G leaves of all scenes, V visible
leaves.
"""

from dataclasses import dataclass

import torch

NO_PARENT = -1
"""Value of `part_BL` and `whole_BL` after a scene's last leaf, since scenes have different numbers of leaves."""


@dataclass(frozen=True, kw_only=True)
class SceneBatch:
    """Scenes in which each pixel belongs to one leaf (smallest region), and each leaf to one part and one whole.

    The mask of a part is the union of its leaves, and the mask of a whole is the union of its parts. The mask of part p
    of scene b is `part_BL[b][ids_BHW[b]] == p`. Leaves, parts and wholes of a scene are each numbered from 0 without
    gaps, and every leaf, part and whole has at least one pixel.
    """

    images_B3HW: torch.Tensor
    """Rendered images, uint8 RGB."""
    ids_BHW: torch.Tensor
    """Leaf (smallest region) of each pixel, int32."""
    part_BL: torch.Tensor
    """Part that each leaf (smallest region) belongs to, int32; NO_PARENT after the scene's last leaf."""
    whole_BL: torch.Tensor
    """Whole object that each leaf (smallest region) belongs to, int32; NO_PARENT after the scene's last leaf."""
    leaves_B: torch.Tensor
    """Number of leaves (smallest regions) of each scene, int32."""

    def level(self, name: str) -> torch.Tensor:
        """Return the id of each pixel at the level `name`, int32 [B, H, W].

        The levels are "leaf" (smallest region), "part" and "whole".
        """
        if name == "leaf":
            return self.ids_BHW
        if name not in ("part", "whole"):
            raise ValueError(f"level {name!r} is unknown; expected 'leaf', 'part' or 'whole'")
        parents_BL = self.part_BL if name == "part" else self.whole_BL
        return parents_BL.gather(1, self.ids_BHW.flatten(1).long()).view_as(self.ids_BHW)


def number_visible(
    leaf_BHW: torch.Tensor, scene_G: torch.Tensor, part_G: torch.Tensor, whole_G: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number the visible leaves (smallest regions), parts and wholes of each scene from 0, without gaps.

    Args:
        leaf_BHW: int64 leaf of each pixel, as an index into the list of all leaves.
        scene_G: scene of each leaf, ascending.
        part_G: int64 part of each leaf, in any numbering; leaves of different scenes never share a part.
        whole_G: int64 whole of each leaf, in any numbering; leaves of different scenes never share a whole.

    Returns:
        The values of `ids_BHW`, `part_BL`, `whole_BL` and `leaves_B` of a `SceneBatch`.
    """
    # Number the visible leaves of each scene
    scenes = leaf_BHW.shape[0]
    seen_G = torch.zeros_like(scene_G, dtype=torch.bool)
    seen_G[leaf_BHW.reshape(-1)] = True
    dense_leaf_G, leaves_B = _number_within_scene(seen_G, scene_G, scenes)

    # Number their parts and wholes
    longest = int(leaves_B.max())
    leaf_V = seen_G.nonzero()[:, 0]
    scene_V, position_V = scene_G[leaf_V], dense_leaf_G[leaf_V]
    maps = []
    for parent_G in (part_G, whole_G):
        parent_BL = torch.full((scenes, longest), NO_PARENT, dtype=torch.int32, device=leaf_BHW.device)
        parent_BL[scene_V, position_V] = _number_parents(parent_G[leaf_V], scene_V, scenes).int()
        maps.append(parent_BL)
    return dense_leaf_G[leaf_BHW].int(), maps[0], maps[1], leaves_B.int()


def _number_within_scene(
    counted_G: torch.Tensor, scene_G: torch.Tensor, scenes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Number the marked entries of each scene from 0, int64 [G], and count them by scene, int64 [B]."""
    count_B = torch.zeros(scenes, dtype=torch.int64, device=scene_G.device).index_add_(0, scene_G, counted_G.long())
    before_B = count_B.cumsum(0) - count_B
    return counted_G.long().cumsum(0) - 1 - before_B[scene_G], count_B


def _number_parents(parent_V: torch.Tensor, scene_V: torch.Tensor, scenes: int) -> torch.Tensor:
    """Renumber parts or wholes from 0 within each scene, in the order of their old numbers."""
    span = parent_V.max() + 1
    unique_U, inverse_V = (scene_V * span + parent_V).unique(return_inverse=True)
    scene_U = unique_U.div(span, rounding_mode="floor")
    number_U, _ = _number_within_scene(torch.ones_like(unique_U, dtype=torch.bool), scene_U, scenes)
    return number_U[inverse_V]
