"""Search of a whole image by a network that sees a part of it: a pyramid of sizes, each in tiles that overlap.

A network finds objects of a range of sizes. Small ones need the full size, and large ones the small sizes, where they
fit into a tile. A tile at a time bounds the memory, however large the image is.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

TILE_PX = 1024
"""Side of a tile; also the size of the working memory, about 0.4 GiB for CenterFace."""
OVERLAP_PX = 256
"""Overlap of neighbouring tiles: an object up to this size lies whole in one of them."""
SMALLEST_LEVEL_PX = 320
"""Longest side of the smallest size of the pyramid, at most; an object that fills the image has that size there."""
MAX_IOU = 0.4
"""IoU above which the box with the lower score is taken for the same object."""

FindInTile = Callable[[np.ndarray], np.ndarray]
"""Function from RGB pixels of at most `TILE_PX` a side to boxes and scores, float32 [N, 5]."""


def search(image_HW3: np.ndarray, find: FindInTile) -> np.ndarray:
    """Find boxes at every size of the pyramid, in the image and in its mirror image; float32 [N, 5], best first."""
    found = [np.zeros((0, 5), np.float32)]
    for level_HW3 in _levels(image_HW3):
        scale_xy = [image_HW3.shape[1] / level_HW3.shape[1], image_HW3.shape[0] / level_HW3.shape[0]]
        for x, y, tile_HW3 in _tiles(level_HW3):
            for boxes in (find(tile_HW3), _mirrored(find(tile_HW3[:, ::-1]), tile_HW3.shape[1])):
                moved = boxes + np.array([x, y, x, y, 0], np.float32)
                found.append(moved * np.array([*scale_xy, *scale_xy, 1], np.float32))
    return without_doubles(np.concatenate(found).astype(np.float32))


def without_doubles(boxes_N5: np.ndarray) -> np.ndarray:
    """Keep the best of boxes that overlap by more than `MAX_IOU`; best first."""
    left = boxes_N5[np.argsort(-boxes_N5[:, 4], kind="stable")]
    kept = [np.zeros((0, 5), np.float32)]
    while len(left):
        best, left = left[:1], left[1:]
        kept.append(best)
        left = left[_iou(best[0], left) <= MAX_IOU]
    return np.concatenate(kept)


def _iou(box: np.ndarray, boxes_N5: np.ndarray) -> np.ndarray:
    width = np.minimum(box[2], boxes_N5[:, 2]) - np.maximum(box[0], boxes_N5[:, 0])
    height = np.minimum(box[3], boxes_N5[:, 3]) - np.maximum(box[1], boxes_N5[:, 1])
    both = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (boxes_N5[:, 2] - boxes_N5[:, 0]) * (boxes_N5[:, 3] - boxes_N5[:, 1])
    return np.asarray(both / np.maximum(areas + (box[2] - box[0]) * (box[3] - box[1]) - both, 1e-6))


def _levels(image_HW3: np.ndarray) -> Iterator[np.ndarray]:
    """Yield twice the size of an image that is small, in which faces are, then the image, half of it, and so on."""
    height, width = image_HW3.shape[:2]
    if max(height, width) <= TILE_PX:
        yield cv2.resize(image_HW3, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    yield image_HW3
    while max(image_HW3.shape) > SMALLEST_LEVEL_PX and min(image_HW3.shape[:2]) > 1:
        height, width = image_HW3.shape[:2]
        image_HW3 = cv2.resize(image_HW3, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
        yield image_HW3


def _tiles(image_HW3: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield tiles with the place of their upper left corner."""
    for y in _starts(image_HW3.shape[0]):
        for x in _starts(image_HW3.shape[1]):
            yield x, y, image_HW3[y : y + TILE_PX, x : x + TILE_PX]


def _starts(length: int) -> list[int]:
    """Return where tiles begin: evenly spread, with at least `OVERLAP_PX` in common."""
    count = max(1, -(-(length - OVERLAP_PX) // (TILE_PX - OVERLAP_PX)))
    last = max(0, length - TILE_PX)
    return [round(number * last / max(1, count - 1)) for number in range(count)]


def _mirrored(boxes_N5: np.ndarray, width: int) -> np.ndarray:
    return np.stack(
        [width - boxes_N5[:, 2], boxes_N5[:, 1], width - boxes_N5[:, 0], boxes_N5[:, 3], boxes_N5[:, 4]], axis=1
    )
