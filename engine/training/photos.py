"""Labelled photos as training data: windows cut from photos, with the masks that a window shows.

Masks of several annotators may describe the same object again, and the masks of one annotator may nest. Each mask has a
prompt of its own.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator

from engine.labelled import LabelledImage, read_pixels
from engine.training.augment import content_size, draw_crop, draw_scale_jitter, scale
from engine.training.sources import Cut, WindowConfig
from storage import rle

DECODED_PHOTOS = 64
WINDOWS_TRIED = 50
MIRRORED_FRACTION = 0.5


class PhotoSource:
    """Source of training windows from labelled photos of several domains.

    The probability of a domain is proportional to the square root of its number of photos. Large domains are therefore
    drawn most often, but small domains are still drawn.
    """

    def __init__(self, images: Sequence[LabelledImage]) -> None:
        """Collect the images that have masks.

        Raises:
            ValueError: No image has a mask.
        """
        self._images = [image for image in images if image.num_masks]
        if not self._images:
            raise ValueError(f"got {len(images)} photos without masks, expected masks to train on")
        domains = [image.domain for image in self._images]
        weights = np.array([domains.count(domain) ** -0.5 for domain in domains])
        self._shares = weights / weights.sum()
        self._decoded = lru_cache(maxsize=DECODED_PHOTOS)(self._decode)

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Cut a window of a random photo, with masks drawn evenly.

        Raises:
            RuntimeError: No window of many tried photos shows a mask of a size to train on.
        """
        return cut_some_photo(lambda: self._draw(rng), rng, window, prompts)

    def cut_all(self, rng: Generator, step: int, window: WindowConfig) -> Cut:
        """Cut a window of a random photo, with every mask of a size to train on.

        Raises:
            RuntimeError: No window of many tried photos shows a mask of a size to train on.
        """
        return cut_some_photo(lambda: self._draw(rng), rng, window, None)

    def prepare(self, step: int) -> None:
        """Do nothing: the photos need no preparation."""

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, without the decoded photos."""
        return {"_images": self._images, "_shares": self._shares}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._decoded = lru_cache(maxsize=DECODED_PHOTOS)(self._decode)

    def _draw(self, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._decoded(int(rng.choice(len(self._images), p=self._shares)))

    def _decode(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        image = self._images[number]
        masks = [rle.decode(mask) for drawn in image.masks_by_annotator.values() for mask in drawn]
        return read_pixels(image), np.stack(masks).astype(np.uint8)


def cut_some_photo(
    draw: Callable[[], tuple[np.ndarray, np.ndarray]], rng: Generator, window: WindowConfig, prompts: int | None
) -> Cut:
    """Draw photos (pixels and masks) until one gives a window with a mask to train on, and cut that window.

    Args:
        draw: function that draws a photo: its pixels, uint8 RGB [H, W, 3], and its masks, uint8 {0, 1} [N, H, W].
        prompts: number of masks of the cut; None takes every mask of a size to train on.

    Raises:
        RuntimeError: No window of many tried photos shows a mask of a size to train on.
    """
    for _ in range(WINDOWS_TRIED):
        cut = cut_photo(*draw(), rng, window, prompts)
        if cut is not None:
            return cut
    raise RuntimeError(
        f"{WINDOWS_TRIED} windows of {window.side_px} px showed no mask of {window.min_mask_px} px and at most "
        f"{window.max_mask_fraction:.0%} of the window; these photos' masks do not suit this window"
    )


def cut_photo(
    image_HW3: np.ndarray,
    masks_NHW: np.ndarray,
    rng: Generator,
    window: WindowConfig,
    prompts: int | None,
    *,
    weights_N: np.ndarray | None = None,
    rejected_N: np.ndarray | None = None,
) -> Cut | None:
    """Cut a window of a photo and its masks (uint8 {0, 1}); return None when the window shows no mask to train on.

    With `prompts` None, the cut has every mask of a size to train on. `weights_N` and `rejected_N` are those of `Cut`.
    """
    image_hw = (image_HW3.shape[0], image_HW3.shape[1])
    if window.large_scale_jitter is not None:
        rows, columns, content_hw = draw_scale_jitter(image_hw, window, rng)
    else:
        content_hw = content_size(window, rng)
        rows, columns = draw_crop(image_hw, content_hw, window.zoom, rng)
    shown_NHW = masks_NHW[:, rows, columns]
    shown = rng.permutation(np.flatnonzero(shown_NHW.any((1, 2))))
    mirrored = bool(rng.random() < MIRRORED_FRACTION)
    kept: list[np.ndarray] = []
    numbers: list[int] = []
    for number in shown:
        mask_HW = (scale(shown_NHW[number] * np.uint8(255), content_hw) > 127).astype(np.uint8)
        if window.min_mask_px <= mask_HW.sum() <= window.max_mask_fraction * mask_HW.size:
            kept.append(mask_HW[:, ::-1] if mirrored else mask_HW)
            numbers.append(int(number))
        if len(kept) == prompts:
            break
    if not kept:
        return None
    content_HW3 = scale(image_HW3[rows, columns], content_hw)
    drawn = [k % len(kept) for k in range(prompts or len(kept))]
    of_cut = np.array(numbers)[drawn]
    return Cut(
        image_HW3=np.ascontiguousarray(content_HW3[:, ::-1] if mirrored else content_HW3),
        masks_NHW=np.ascontiguousarray(np.stack([kept[k] for k in drawn])),
        weights_N=None if weights_N is None else weights_N[of_cut],
        rejected_N=None if rejected_N is None else rejected_N[of_cut],
    )
