"""De-identification: faces and licence plates are found and made unrecognisable before anything is stored.

upright pixels of the stored size -> detectors -> regions, enlarged -> pixelated, then blurred -> encoded

A detector is a function from pixels to boxes with scores, with a name for provenance. Which detectors searched an
image, and which regions of it were concealed, stands in the commit record of its shard; in SQL these are the views
`privacy_searches` and `privacy_regions`. A release holds neither.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from PIL import Image

Kind = Literal["faces", "plates"]
"""What a detector finds."""

METHOD = 1
"""Number of the way in which regions are concealed; another number means other pixels for the same boxes."""
ENLARGEMENT = 1.5
"""Width and height of a concealed region as a multiple of the detector's box, so that hair and chin are in it."""
MAX_CELLS = 6
"""Maximum number of pixelation cells along the longer side of a region: 4 across the face itself. A plain blur of a
large face can be recognised by eye.
"""


class Detector(Protocol):
    """Function that finds the faces or licence plates of an image."""

    @property
    def kind(self) -> Kind:
        """What it finds."""
        ...

    @property
    def name(self) -> str:
        """Name with the first 12 hex digits of the SHA-256 of its weights, without spaces; what provenance keeps."""
        ...

    @property
    def min_score(self) -> float:
        """Score from which a box is concealed."""
        ...

    def __call__(self, image_HW3: np.ndarray) -> np.ndarray:
        """Find boxes in RGB pixels; float32 [N, 5]: x0, y0, x1, y1 in pixels, half-open, and the score in [0, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Region:
    """One box of a detector, which was concealed."""

    kind: Kind
    detector: str
    """Name of the detector."""
    box_xyxy: tuple[int, int, int, int]
    """Box as the detector found it, half-open, in pixels of the stored image; the concealed region is larger."""
    score: float


@dataclass(frozen=True, kw_only=True)
class Concealed:
    """An image without recognisable faces or plates, as far as the detectors found them."""

    image: Image.Image
    """Pixels without metadata; the same object as was given where nothing was found."""
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Concealer:
    """Detectors of one ingest, and what they do to an image; any thread may call it."""

    detectors: Sequence[Detector]

    def settings(self) -> dict[str, object]:
        """Collect what decides the pixels of an image, which a plan records."""
        settings: dict[str, object] = {"method": METHOD}
        for each in self.detectors:
            settings[each.kind] = {"detector": each.name, "min_score": each.min_score}
        return settings

    def __call__(self, image: Image.Image) -> Concealed:
        """Conceal every face and plate that the detectors find in an image of mode L or RGB."""
        pixels_HW3 = np.asarray(image.convert("RGB"))
        regions = [region for detector in self.detectors for region in _find(detector, pixels_HW3)]
        if not regions:
            return Concealed(image=image)
        pixels = np.array(image)
        conceal(pixels, [region.box_xyxy for region in regions])
        return Concealed(image=Image.fromarray(pixels), regions=tuple(regions))


def _find(detector: Detector, pixels_HW3: np.ndarray) -> Iterable[Region]:
    height, width = pixels_HW3.shape[:2]
    for *box, score in detector(pixels_HW3).tolist():
        x0, y0 = (max(0, int(np.floor(value))) for value in box[:2])
        x1, y1 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
        if score >= detector.min_score and x0 < x1 and y0 < y1:
            yield Region(kind=detector.kind, detector=detector.name, box_xyxy=(x0, y0, x1, y1), score=score)


def conceal(pixels: np.ndarray, boxes_xyxy: Sequence[tuple[int, int, int, int]]) -> None:
    """Pixelate and then blur the enlarged boxes of uint8 pixels [H, W] or [H, W, 3], in place."""
    import cv2  # here, so that commands which only read the settings start without it

    height, width = pixels.shape[:2]
    for box in boxes_xyxy:
        # The enlarged region, inside the image
        x0, y0, x1, y1 = enlarged(box, width, height)
        region = pixels[y0:y1, x0:x1]

        # A few cells of their mean colour, at the size of the region
        size_wh = (x1 - x0, y1 - y0)
        cell_px = max(1.0, max(size_wh) / MAX_CELLS)
        cells_wh = (max(1, round(size_wh[0] / cell_px)), max(1, round(size_wh[1] / cell_px)))
        cells = cv2.resize(region, cells_wh, interpolation=cv2.INTER_AREA)
        pixelated = cv2.resize(cells, size_wh, interpolation=cv2.INTER_NEAREST)

        # Without the edges of the cells, which draw the eye and give masks of their own
        pixels[y0:y1, x0:x1] = cv2.GaussianBlur(pixelated, (0, 0), cell_px / 2, borderType=cv2.BORDER_REPLICATE)


def enlarged(box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Return the region that is concealed for a box, inside an image of the given size."""
    x0, y0, x1, y1 = box
    more_x, more_y = (round((ENLARGEMENT - 1) / 2 * side) for side in (x1 - x0, y1 - y0))
    return max(0, x0 - more_x), max(0, y0 - more_y), min(width, x1 + more_x), min(height, y1 + more_y)
