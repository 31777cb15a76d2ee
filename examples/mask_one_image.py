"""Mask one photo and draw what was found over it.

python examples/mask_one_image.py PHOTO OUT.png [MODEL] [POINTS_PER_SIDE]
"""

import sys
from pathlib import Path

import matplotlib.image
import numpy as np

import gigamask


def main(photo: str, out: str, model_name: str = "seed", points_per_side: str = "32") -> None:
    """Write the photo with each mask in a colour of its own, the largest first."""
    model = gigamask.load_model(model_name)
    image_HW3 = gigamask.read_photo(photo)
    config = gigamask.GenerateConfig(points_per_side=int(points_per_side))
    generated = gigamask.generate_masks(model, image_HW3, config)

    colours = np.random.default_rng(0).integers(64, 256, (len(generated.masks), 3))
    overlay_HW3 = image_HW3.copy()
    by_area = sorted(generated.masks, key=lambda mask: mask.area_px, reverse=True)
    for mask, colour in zip(by_area, colours, strict=True):
        mask_HW = gigamask.rle.decode(mask.rle)  # bool, the size of the photo
        overlay_HW3[mask_HW] = overlay_HW3[mask_HW] // 2 + colour.astype(np.uint8) // 2
    matplotlib.image.imsave(out, overlay_HW3)

    print(f"{len(generated.masks)} masks of {Path(photo).name}, drawn in {out}")
    print(generated.diagnostics.explain())  # what each filter dropped


if __name__ == "__main__":
    main(*sys.argv[1:])
