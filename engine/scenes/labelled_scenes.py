"""Procedural scenes as labelled images: what measures or calibrates on labelled images can use scenes instead."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from engine.labelled import LabelledImage
from engine.scenes.scene_generator import generate_scenes
from storage import rle

DOMAIN = "scenes"
MAX_FRACTION = 0.9
"""Area of the largest mask of a scene, as a fraction of the scene."""


def labelled_scenes(count: int, side: int, seed: int, *, min_mask_px: int = 50) -> list[LabelledImage]:
    """Make scenes of side x side pixels with the masks of all distinct wholes, parts and sub-parts, as one annotator's.

    Args:
        min_mask_px: area of the smallest mask, in pixels.
    """
    batch = generate_scenes(count, side, torch.Generator().manual_seed(seed), "cpu")
    levels = [batch.level(name).numpy() for name in ("leaf", "part", "whole")]
    images_BHW3 = batch.images_B3HW.permute(0, 2, 3, 1).numpy()
    scenes = []
    for number in range(count):
        masks: dict[bytes, np.ndarray] = {}
        for level_BHW in levels:
            nodes, areas = np.unique(level_BHW[number], return_counts=True)
            for node in nodes[(areas >= min_mask_px) & (areas <= MAX_FRACTION * side * side)]:
                mask_HW = level_BHW[number] == node
                masks.setdefault(mask_HW.tobytes(), mask_HW)  # a level may repeat the one below
        png = cv2.imencode(".png", images_BHW3[number][:, :, ::-1])[1].tobytes()
        scenes.append(
            LabelledImage(
                domain=DOMAIN,
                stem=f"{seed}_{number}",
                origin=f"scene {number} of seed {seed}",
                read_bytes=lambda png=png: png,  # type: ignore[misc]
                image_id=number,
                height=side,
                width=side,
                masks_by_annotator={0: tuple(rle.encode(mask_HW) for mask_HW in masks.values())},
            )
        )
    return scenes
