"""SceneBatch: scenes with exact, nested masks, and the step that numbers only what is visible.

Shape suffixes: B scenes, H W rows and columns, L leaves of the fullest scene, G leaves of all scenes, V visible ones.
"""

from dataclasses import dataclass

import torch

NO_PARENT = -1
"""Padding of the parent maps beyond a scene's last leaf."""


@dataclass(frozen=True, kw_only=True)
class SceneBatch:
    """Scenes in which every pixel belongs to one leaf, every leaf to one part, every part to one whole.

    A part's mask is the union of its leaves, a whole's the union of its parts: `mask = part_BL[b][ids_BHW[b]] == p`.
    Leaves, parts and wholes of scene b are each numbered from 0 without gaps, and each has pixels.
    """

    images_B3HW: torch.Tensor
    """Rendered images, uint8 RGB."""
    ids_BHW: torch.Tensor
    """Leaf of each pixel, int32."""
    part_BL: torch.Tensor
    """Part of each leaf, int32; NO_PARENT after the scene's last leaf."""
    whole_BL: torch.Tensor
    """Whole of each leaf, int32; NO_PARENT after the scene's last leaf."""
    leaves_B: torch.Tensor
    """Number of leaves of each scene, int32."""

    def level(self, name: str) -> torch.Tensor:
        """Return int32 [B, H, W] ids at one level of the tree: "leaf", "part" or "whole"."""
        if name == "leaf":
            return self.ids_BHW
        if name not in ("part", "whole"):
            raise ValueError(f"level {name!r} is unknown; expected 'leaf', 'part' or 'whole'")
        parents_BL = self.part_BL if name == "part" else self.whole_BL
        return parents_BL.gather(1, self.ids_BHW.flatten(1).long()).view_as(self.ids_BHW)


def number_visible(
    leaf_BHW: torch.Tensor, scene_G: torch.Tensor, part_G: torch.Tensor, whole_G: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number what is visible without gaps: leaf ids, part map, whole map and leaf counts of a SceneBatch.

    Args:
        leaf_BHW: int64 leaf of each pixel, an index into the row of all leaves.
        scene_G: scene of each leaf, ascending.
        part_G: int64 part of each leaf, in any numbering; leaves of different scenes never share one.
        whole_G: int64 whole of each leaf, as `part_G`.
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
    """Number the counted entries of each scene (int64 [G]), and count them (int64 [B])."""
    count_B = torch.zeros(scenes, dtype=torch.int64, device=scene_G.device).index_add_(0, scene_G, counted_G.long())
    before_B = count_B.cumsum(0) - count_B
    return counted_G.long().cumsum(0) - 1 - before_B[scene_G], count_B


def _number_parents(parent_V: torch.Tensor, scene_V: torch.Tensor, scenes: int) -> torch.Tensor:
    """Renumber parents from 0 within each scene, in the order of their old numbers."""
    span = parent_V.max() + 1
    unique_U, inverse_V = (scene_V * span + parent_V).unique(return_inverse=True)
    scene_U = unique_U.div(span, rounding_mode="floor")
    number_U, _ = _number_within_scene(torch.ones_like(unique_U, dtype=torch.bool), scene_U, scenes)
    return number_U[inverse_V]
