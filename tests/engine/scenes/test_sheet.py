"""Contact sheets."""

from pathlib import Path

import cv2
import pytest

from engine.scenes.sheet import write_contact_sheet


def test_a_sheet_shows_image_wholes_and_leaves_of_every_scene(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path / "sheet.png", 5, 0, side=64)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert sheet.shape == (2 * 64, 4 * 3 * 64, 3)
    assert sheet[64:, : 3 * 64].any()
    assert not sheet[64:, 3 * 64 :].any()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        write_contact_sheet(tmp_path / "nowhere" / "sheet.png", 1, 0, side=64)
