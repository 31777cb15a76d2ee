"""Decode and resize images, and map coordinates between an image and the model's input.

Coordinates are (x, y) in pixels, and boxes are half-open xyxy. Coordinates that a `Frame` returns are float64, so that
the grid of an 11-megapixel image lands where the reference code puts it. Shape letters: H height, W width, N items.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F


def decode(data: bytes) -> np.ndarray:
    """Decode an image to RGB pixels, uint8 [H, W, 3].

    Grey and palette images become RGB, alpha is dropped and 16-bit samples become 8-bit. EXIF orientation is ignored,
    because the dataset stores images upright.

    Raises:
        ValueError: The bytes are not an image that OpenCV can decode.
    """
    if not data:
        raise ValueError("got 0 bytes, expected an encoded image; the file is empty")
    try:
        image_bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(f"OpenCV refused an encoded image of {len(data)} bytes: {error.err}") from error
    if image_bgr is None:
        raise ValueError(
            f"got {len(data)} bytes starting {data[:8].hex(' ')}, expected a JPEG, PNG, WebP or TIFF; "
            "the file is damaged or of another kind"
        )
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)


def resize(image_HW3: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize an image to `size_hw` with antialiased bilinear filtering, uint8 [h, w, 3].

    The result is within one grey level of PIL's `Image.resize(..., BILINEAR)`, with which the original SAM was trained.

    Raises:
        ValueError: The image is not uint8 [H, W, 3], or the size is empty.
    """
    check_image(image_HW3)
    if min(size_hw) < 1:
        raise ValueError(f"got size {size_hw}, expected (height, width) of at least 1 pixel each")
    if image_HW3.shape[:2] == tuple(size_hw):
        return image_HW3
    if not image_HW3.flags.writeable or not image_HW3.flags.c_contiguous:
        image_HW3 = np.array(image_HW3, order="C")  # torch warns about memory it could write to by mistake
    pixels_13HW = torch.from_numpy(image_HW3).permute(2, 0, 1)[None]
    resized_13HW = F.interpolate(pixels_13HW, size_hw, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized_13HW[0].permute(1, 2, 0).numpy())


def check_image(image_HW3: np.ndarray) -> None:
    """Check that the array is a uint8 [H, W, 3] image of at least one pixel.

    Raises:
        ValueError: The array is not such an image.
    """
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or 0 in image_HW3.shape:
        raise ValueError(
            f"got {image_HW3.dtype} {list(image_HW3.shape)}, expected uint8 [height, width, 3] RGB pixels; "
            "images.decode makes one from a file's bytes"
        )


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A window of an image as the model sees it.

    The window is scaled so that its longer side is `model_side`, then padded right and below to a square.
    """

    crop_xyxy: tuple[int, int, int, int]
    """Window of the image, half-open, in pixels."""
    image_hw: tuple[int, int]
    """Size (height, width) of the whole image, in pixels."""
    model_side: int
    """Side of the model's square input, in pixels."""

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.crop_xyxy
        height, width = self.image_hw
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height) or self.model_side < 1:
            raise ValueError(
                f"got crop {self.crop_xyxy} of an image of height {height} and width {width} for a model side of "
                f"{self.model_side}, expected a window of at least one pixel inside the image"
            )

    @classmethod
    def whole(cls, image_hw: tuple[int, int], model_side: int) -> Frame:
        """Make the frame whose window is the whole image."""
        height, width = image_hw
        return cls(crop_xyxy=(0, 0, width, height), image_hw=(height, width), model_side=model_side)

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Height and width of the window in image pixels."""
        x0, y0, x1, y1 = self.crop_xyxy
        return y1 - y0, x1 - x0

    @property
    def scaled_hw(self) -> tuple[int, int]:
        """Height and width of the scaled window in model pixels, without padding.

        The longer side is `model_side`, and the shorter side is at least 1.
        """
        height, width = self.crop_hw
        scale = self.model_side * 1.0 / max(height, width)  # in this order: the reference's rounding
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    @property
    def _scale_xy(self) -> np.ndarray:
        (height, width), (scaled_height, scaled_width) = self.crop_hw, self.scaled_hw
        return np.array([scaled_width / width, scaled_height / height])

    @property
    def _origin_xy(self) -> np.ndarray:
        return np.array(self.crop_xyxy[:2], dtype=np.float64)

    def crop(self, image_HW3: np.ndarray) -> np.ndarray:
        """Return the pixels of the window at the image's resolution, as a view of `image_HW3`.

        Raises:
            ValueError: The image does not have the size of the frame's image.
        """
        if image_HW3.shape[:2] != tuple(self.image_hw):
            raise ValueError(f"got an image of {image_HW3.shape[:2]}, expected {self.image_hw} (height, width)")
        x0, y0, x1, y1 = self.crop_xyxy
        return image_HW3[y0:y1, x0:x1]

    def points_to_model(self, points_N2: np.ndarray) -> np.ndarray:
        """Map points (x, y) from image pixels to model-input pixels; float64, with any leading shape."""
        return (np.asarray(points_N2, dtype=np.float64) - self._origin_xy) * self._scale_xy

    def points_to_image(self, points_N2: np.ndarray) -> np.ndarray:
        """Map points (x, y) from model-input pixels to image pixels; float64, with any leading shape."""
        return np.asarray(points_N2, dtype=np.float64) / self._scale_xy + self._origin_xy

    def boxes_to_model(self, boxes_N4: np.ndarray) -> np.ndarray:
        """Map boxes (xyxy) from image pixels to model-input pixels; float64 [N, 4]."""
        boxes_N22 = np.asarray(boxes_N4, dtype=np.float64).reshape(-1, 2, 2)
        return self.points_to_model(boxes_N22).reshape(-1, 4)

    def boxes_to_image(self, boxes_N4: np.ndarray) -> np.ndarray:
        """Map boxes (xyxy) from model-input pixels to image pixels; float64 [N, 4]."""
        boxes_N22 = np.asarray(boxes_N4, dtype=np.float64).reshape(-1, 2, 2)
        return self.points_to_image(boxes_N22).reshape(-1, 4)
