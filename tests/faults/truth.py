"""What a dataset of the fault harness must hold: photographs and masks that follow from their numbers alone.

Nothing here knows the dataset's code. A plan says by its inputs which photographs belong to a shard ("photo-7"; "bad-7"
is one that cannot be used until its shard is redone), and by its settings which masks.
"""

import hashlib
from functools import cache

import cv2
import numpy as np

HEIGHT, WIDTH = 48, 64
MASKS_PER_IMAGE = 3


@cache
def photo(number: int) -> bytes:
    """JPEG bytes of one small photograph."""
    coarse_HW3 = np.random.default_rng(number).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse_HW3, (WIDTH, HEIGHT)))[1].tobytes()


@cache
def image_id(number: int) -> int:
    """First 63 bits of the photograph's SHA-256."""
    return int.from_bytes(hashlib.sha256(photo(number)).digest()[:8], "big") >> 1


def mask_HW(number: int, ordinal: int, variant: int) -> np.ndarray:
    """One mask of a photograph; bool. `variant` differs from plan to plan. No two masks are equal."""
    dice = np.random.default_rng([number, ordinal, variant])
    pixels_HW = np.zeros((HEIGHT, WIDTH), dtype=bool)
    top, left = int(dice.integers(0, HEIGHT // 2)), int(dice.integers(0, WIDTH // 2))
    height, width = dice.integers(5, 20, 2)
    pixels_HW[top : top + height, left : left + width] = dice.random((height, width)) < 0.8
    return pixels_HW


def numbers(inputs: list[str], *, mended: bool) -> list[int]:
    """Photographs that an image shard of these inputs holds, by image id; bad ones only once they are mended."""
    kinds = ("photo", "bad") if mended else ("photo",)
    sources = [each.partition("\t")[0].partition("-") for each in inputs]
    chosen = [int(number) for kind, _, number in sources if kind in kinds]
    return sorted(chosen, key=image_id)
