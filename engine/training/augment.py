"""Augmentation of training windows: their size and place in the image, large-scale jitter, resizing, colours."""

import cv2
import numpy as np
from numpy.random import Generator

from engine.training.sources import WindowConfig


def content_size(window: WindowConfig, rng: Generator) -> tuple[int, int]:
    """Draw the height and width in px of the image content in a window; the content's longer side fills the window."""
    aspect = window.aspects[rng.integers(len(window.aspects))]
    short = int(window.side_px * aspect + 0.5)
    return (short, window.side_px) if rng.random() < 0.6 else (window.side_px, short)


def draw_crop(
    image_hw: tuple[int, int], content_hw: tuple[int, int], zoom: tuple[float, float], rng: Generator
) -> tuple[slice, slice]:
    """Draw the rows and columns of the image to cut out; the image's sides limit how far the cut zooms out."""
    least = max(content / image for content, image in zip(content_hw, image_hw, strict=True))
    low, high = max(zoom[0], least), max(zoom[1], least)
    factor = np.exp(rng.uniform(np.log(low), np.log(high)))
    height, width = (min(int(content / factor + 0.5), side) for content, side in zip(content_hw, image_hw, strict=True))
    top = int(rng.integers(image_hw[0] - height + 1))
    left = int(rng.integers(image_hw[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def draw_scale_jitter(
    image_hw: tuple[int, int], window: WindowConfig, rng: Generator
) -> tuple[slice, slice, tuple[int, int]]:
    """Draw large-scale jitter: rows and columns of the image to cut out, and the (height, width) to resize them to."""
    assert window.large_scale_jitter is not None
    factor = rng.uniform(*window.large_scale_jitter) * window.side_px / max(image_hw)
    content_hw = tuple(max(1, min(window.side_px, int(side * factor + 0.5))) for side in image_hw)
    taken = [max(1, min(side, int(content / factor + 0.5))) for side, content in zip(image_hw, content_hw, strict=True)]
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(image_hw, taken, strict=True))
    return slice(top, top + taken[0]), slice(left, left + taken[1]), (content_hw[0], content_hw[1])


def scale(image_HWC: np.ndarray, size_hw: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """Resize an image to (height, width): average to shrink, interpolate to grow; with `nearest`, copy pixels."""
    shrinks = size_hw[0] < image_HWC.shape[0]
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image_HWC), size_hw[::-1], interpolation=method)


def jitter_colours(image_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    """Change an image's colours at random: permute, scale and shift the channels, change gamma, turn the image grey."""
    if rng.random() < 0.3:
        image_HW3 = image_HW3[..., rng.permutation(3)]
    levels_256_3: np.ndarray = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, 1)
    if rng.random() < 0.5:
        levels_256_3 = levels_256_3 * rng.uniform(0.6, 1.4) + rng.normal(size=3) * 12
    if rng.random() < 0.3:
        levels_256_3 = 255 * (np.clip(levels_256_3, 0, 255) / 255) ** rng.uniform(0.6, 1.6)
    table_256_3 = np.clip(levels_256_3 + 0.5, 0, 255).astype(np.uint8)
    image_HW3 = np.stack([table_256_3[image_HW3[..., c], c] for c in range(3)], -1)
    if rng.random() < 0.07:
        image_HW3 = np.repeat(image_HW3.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    return image_HW3
