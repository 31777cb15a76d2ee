"""Features of masks, on a photograph and on drawn images."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from engine.interactive.zoom import open_with_sam
from engine.labelled import load_folder, read_pixels
from engine.model.weights import load_model
from engine.verifier.features import FEATURES, mask_features
from storage import rle
from storage.rle import Rle
from tests.engine.detector.square_detector import square_image, square_model
from tests.paths import PHOTOS


@dataclass(frozen=True)
class Scored:
    rle: Rle
    predicted_iou: float = 0.8
    stability_score: float = 0.9


def columns(mask_HW: np.ndarray, image_HW3: np.ndarray) -> dict[str, float]:
    (row,) = mask_features(open_with_sam(square_model(), image_HW3), image_HW3, [Scored(rle.encode(mask_HW))])
    return dict(zip(FEATURES, row.tolist(), strict=True))


def test_shape_and_edges_of_a_drawn_square() -> None:
    image_HW3, mask_HW = square_image(np.random.default_rng(1))
    found = columns(mask_HW, image_HW3)
    assert found["predicted_iou"] == pytest.approx(0.8)
    assert found["stability"] == pytest.approx(0.9)
    assert found["log_area"] == pytest.approx(np.log(mask_HW.mean()))
    assert (found["log_components"], found["largest_component"]) == (0.0, 1.0)
    for agreement in ("box_agreement", "click_agreement", "zoom_agreement"):
        assert 0 <= found[agreement] <= 1
    assert found["zoom_agreement"] in (0.0, 1.0), "a SAM without windows has one zoom; 0 where its mask is empty"
    moved = columns(np.roll(mask_HW, (7, 9), (0, 1)), image_HW3)
    assert found["contour_gradient"] > 1.5
    assert moved["contour_gradient"] < found["contour_gradient"] - 0.3


def test_components_and_border_are_seen() -> None:
    image_HW3, _ = square_image(np.random.default_rng(1))
    mask_HW = np.zeros((64, 64), dtype=bool)
    mask_HW[0:10, 0:30] = mask_HW[40:50, 40:50] = True
    found = columns(mask_HW, image_HW3)
    assert found["log_components"] == pytest.approx(np.log(2))
    assert found["largest_component"] == pytest.approx(0.75)
    assert 0.2 < found["border"] < 0.5


def test_masks_of_people_agree_with_the_seed_more_than_the_same_masks_moved() -> None:
    """On a real photograph, with the model that ships: a mask beside its object is not found again."""
    model = load_model("seed")
    image = next(image for image in load_folder(PHOTOS) if image.stem == "nuts_0")
    image_HW3 = read_pixels(image)
    masks = [rle.decode(mask) for mask in image.masks_by_annotator[0]][:5]
    moved = [np.roll(mask, (mask.any(1).sum() // 2, mask.any(0).sum() // 2), (0, 1)) for mask in masks]
    opened = open_with_sam(model, image_HW3)
    right, wrong = (
        mask_features(opened, image_HW3, [Scored(rle.encode(mask)) for mask in group]) for group in (masks, moved)
    )
    for name in ("box_agreement", "click_agreement", "contour_gradient"):
        column = FEATURES.index(name)
        assert right[:, column].mean() > wrong[:, column].mean() + 0.05, name
    assert right.shape == (5, len(FEATURES))
    assert np.isfinite(right).all()


def test_masks_that_cannot_be_verified_are_refused() -> None:
    image_HW3, mask_HW = square_image(np.random.default_rng(1))
    opened, scored = open_with_sam(square_model(), image_HW3), Scored(rle.encode(mask_HW))
    with pytest.raises(ValueError, match="got a mask of 60x64 and an image of 64x64"):
        mask_features(opened, image_HW3, [Scored(rle.encode(mask_HW[:, :60]))])
    with pytest.raises(ValueError, match="got an empty mask"):
        mask_features(opened, image_HW3, [Scored(rle.encode(np.zeros_like(mask_HW)))])
    with pytest.raises(ValueError, match="got predicted IoU nan"):
        mask_features(opened, image_HW3, [replace(scored, predicted_iou=float("nan"))])
    assert mask_features(opened, image_HW3, []).shape == (0, len(FEATURES))
