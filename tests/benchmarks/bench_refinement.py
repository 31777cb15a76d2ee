"""Refinement of damaged masks by one click: mean IoU with the ground truth, for ways to prompt with a bitmap.

Ground-truth masks of the test photos are eroded, dilated or bitten at random; the click is the evaluation's. The lines
show what the choices of `engine.interactive.refine` rest on.
"""

import math
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from json_lines import print_line

from engine.evaluation.annotator import centre_click, iou, next_click
from engine.interactive.batched import ImageViews, predict_many, windows_of
from engine.interactive.refine import change_around_clicks, prompt_with_mask
from engine.interactive.segment import Click, CropXyxy, ObjectPrompt
from engine.interactive.zoom import ZoomedImage
from engine.labelled import load_folder, read_pixels
from engine.model.weights import Model, load_model
from storage import rle
from storage.rle import Rle
from tests.paths import PHOTOS

MAX_MASKS = 40
"""Most masks of one photo."""
FACTORS = (0.125, 0.5, 1.0, 2.5)
"""Multiples of `MASK_LOGIT` that are compared."""


def main() -> None:
    """Print mean IoU before and after one click, for each way."""
    model, rng = load_model("seed"), np.random.default_rng(0)
    before: list[float] = []
    after: dict[str, list[float]] = {}
    for image in load_folder(PHOTOS):
        pixels_HW3 = read_pixels(image)
        zoomed, image_hw = ZoomedImage(model, pixels_HW3), (image.height, image.width)
        views = ImageViews(
            image_hw=image_hw,
            windows=windows_of(model, image_hw),
            embed=partial(embedding, zoomed),
        )
        truths = [rle.decode(mask) for mask in next(iter(image.masks_by_annotator.values()))[:MAX_MASKS]]
        for truth_HW in truths:
            damaged_HW = damage(truth_HW, rng)
            if truth_HW.sum() <= 200 or damaged_HW.sum() < 50 or np.array_equal(damaged_HW, truth_HW):
                continue
            click = next_click(truth_HW, damaged_HW, [], centre_click, rng)
            before.append(iou(damaged_HW, truth_HW))
            for way, refined in refinements(model, views, rle.encode(damaged_HW), click).items():
                after.setdefault(way, []).append(iou(rle.decode(refined), truth_HW))
    print_line("refinement", "mean IoU before", float(np.mean(before)), "IoU", masks=len(before))
    for way, values in after.items():
        improved = float(np.mean(np.array(values) > np.array(before)))
        print_line("refinement", f"mean IoU after: {way}", float(np.mean(values)), "IoU", improved=round(improved, 2))


def embedding(zoomed: ZoomedImage, crop_xyxy: CropXyxy) -> torch.Tensor:
    """Return the embedding of a window."""
    return zoomed.view(crop_xyxy).embeddings_1CEE


def refinements(model: Model, views: ImageViews, damaged: Rle, click: Click) -> dict[str, Rle]:
    """Refine a mask in each of the ways that are compared."""
    clicked = ObjectPrompt(clicks=(click,))
    full = prompt_with_mask(model, views, clicked, damaged)
    prompts = {
        "mask and box": full,
        "mask without box": replace(full, box_xyxy=None),
        "box without mask": replace(full, previous_logits_LL=None),
        "click alone": clicked,
    }
    assert full.previous_logits_LL is not None
    for factor in FACTORS:
        scaled_LL = full.previous_logits_LL * factor
        prompts[f"mask and box, logits x {factor}"] = replace(full, previous_logits_LL=scaled_LL)
    found = predict_many(model, [(views, prompt) for prompt in prompts.values()])
    ways = {way: masks[0].rle for way, masks in zip(prompts, found, strict=True)}
    twice = replace(
        full, previous_logits_LL=found[0][0].logits_LL, previous_crop_xyxy=found[0][0].crop_xyxy, box_xyxy=full.box_xyxy
    )
    ways["mask and box, second pass"] = predict_many(model, [(views, twice)])[0][0].rle
    return ways | {"around the click alone (as served)": change_around_clicks(damaged, ways["mask and box"], [click])}


def damage(truth_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Erode or dilate a mask by a quarter of its size or leave it, then add or remove a disc somewhere on it."""
    size = math.sqrt(truth_HW.sum())
    side = int(max(3, 0.25 * size)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = (cv2.erode, cv2.dilate, lambda mask_HW, _: mask_HW.copy())[rng.integers(3)]
    damaged_HW = change(truth_HW.astype(np.uint8), kernel)
    rows, columns = np.nonzero(truth_HW)
    at = rng.integers(len(rows))
    cv2.circle(damaged_HW, (int(columns[at]), int(rows[at])), int(0.3 * size) + 1, int(rng.integers(2)), -1)
    return np.asarray(damaged_HW, dtype=bool)


if __name__ == "__main__":
    main()
