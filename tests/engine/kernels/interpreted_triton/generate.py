"""The generator with every Triton kernel, on an image, against the kernels of a CPU."""

from dataclasses import replace

from engine.automatic.config import PRESETS
from engine.automatic.generate import generate_masks
from engine.images import decode, resize
from engine.model.weights import load_model
from tests.paths import PHOTOS

PHOTO = PHOTOS / "coco" / "coco_000000255165.jpg"


def test_the_generator_makes_the_same_masks_of_an_image_with_triton_as_with_numba() -> None:
    photo = resize(decode(PHOTO.read_bytes()), (60, 50))
    config = replace(PRESETS["paper"], points_per_side=4, crop_layers=1, min_region_px=20, points_per_batch=16)
    config = replace(config, predicted_iou_threshold=0.5, stability_threshold=0.05)
    seed = load_model("seed")
    ours, theirs = (generate_masks(seed, photo, config, kernels=kernels) for kernels in ("triton", "numba"))
    assert len(theirs.masks) >= 3
    assert ours == theirs
