"""Contact sheets for visual checks: images of scenes beside their coloured wholes and leaves (smallest regions)."""

from pathlib import Path

import cv2
import numpy as np
import torch

from engine.scenes.batch import SceneBatch
from engine.scenes.scene_generator import generate_scenes

SCENES_PER_ROW = 4
"""Number of scenes in a row of the sheet."""
SHEET_SIDE = 256
"""Default side of a scene, in pixels."""


def write_contact_sheet(path: Path | str, count: int, seed: int, *, side: int = SHEET_SIDE) -> None:
    """Write a contact sheet of `count` scenes of this seed as an image file; the ending of `path` gives the format.

    Raises:
        ValueError: OpenCV cannot write the file.
    """
    batch = generate_scenes(count, side, torch.Generator().manual_seed(seed), "cpu")
    if not cv2.imwrite(str(path), contact_sheet(batch)[:, :, ::-1]):
        raise ValueError(f"cannot write {path}: expected an existing folder and an ending such as .png or .jpg")


def contact_sheet(batch: SceneBatch) -> np.ndarray:
    """Lay out each scene's image beside its wholes (whole objects) and its leaves (smallest regions) in colours.

    Returns:
        Contact sheet, uint8 RGB [rows x side, 4 x 3 x side, 3].
    """
    images = batch.images_B3HW.permute(0, 2, 3, 1).cpu().numpy()
    panels = [images, _coloured(batch.level("whole")), _coloured(batch.level("leaf"))]
    cells = np.concatenate(panels, axis=2)
    missing = -len(cells) % SCENES_PER_ROW
    cells = np.concatenate([cells, np.zeros((missing, *cells.shape[1:]), np.uint8)])
    rows = [np.concatenate(list(cells[i : i + SCENES_PER_ROW]), axis=1) for i in range(0, len(cells), SCENES_PER_ROW)]
    return np.concatenate(rows)


def _coloured(ids_BHW: torch.Tensor) -> np.ndarray:
    """Turn ids into RGB colours; an id has the same colour in every sheet."""
    ids = ids_BHW.cpu().numpy()
    colours = np.random.default_rng(0).integers(40, 256, (int(ids.max()) + 1, 3)).astype(np.uint8)
    return colours[ids]
