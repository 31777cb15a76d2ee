"""Contact sheets: scenes beside their wholes and leaves, for visual checks."""

from pathlib import Path

import cv2
import numpy as np
import torch

from engine.scenes.batch import SceneBatch
from engine.scenes.scene_generator import generate_scenes

SCENES_PER_ROW = 4
"""Scenes in a row of the sheet."""
SHEET_SIDE = 256
"""Default side of a scene, in pixels."""


def write_contact_sheet(path: Path | str, count: int, seed: int, *, side: int = SHEET_SIDE) -> None:
    """Write `count` scenes of this seed as one image file; its ending chooses the format.

    Raises:
        ValueError: OpenCV cannot write the file.
    """
    batch = generate_scenes(count, side, torch.Generator().manual_seed(seed), "cpu")
    if not cv2.imwrite(str(path), contact_sheet(batch)[:, :, ::-1]):
        raise ValueError(f"cannot write {path}: expected an existing folder and an ending such as .png or .jpg")


def contact_sheet(batch: SceneBatch) -> np.ndarray:
    """Lay out uint8 RGB [rows x side, 4 x 3 x side, 3]: each scene's image, its wholes and its leaves in colours."""
    images = batch.images_B3HW.permute(0, 2, 3, 1).cpu().numpy()
    panels = [images, _coloured(batch.level("whole")), _coloured(batch.level("leaf"))]
    cells = np.concatenate(panels, axis=2)
    missing = -len(cells) % SCENES_PER_ROW
    cells = np.concatenate([cells, np.zeros((missing, *cells.shape[1:]), np.uint8)])
    rows = [np.concatenate(list(cells[i : i + SCENES_PER_ROW]), axis=1) for i in range(0, len(cells), SCENES_PER_ROW)]
    return np.concatenate(rows)


def _coloured(ids_BHW: torch.Tensor) -> np.ndarray:
    """Colour ids, each the same in every sheet."""
    ids = ids_BHW.cpu().numpy()
    colours = np.random.default_rng(0).integers(40, 256, (int(ids.max()) + 1, 3)).astype(np.uint8)
    return colours[ids]
