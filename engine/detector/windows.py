"""Training windows of the detector, encoded once: the image encoder is frozen, so that every pass over them is cheap.

The embeddings lie in one file that is mapped into memory, so that they may be larger than the memory. The description
is written last: a folder without it was left by a training that was killed, and is filled again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.images import Frame
from engine.model.sam import Sam
from engine.training.augment import jitter_colours
from engine.training.sources import Cut, Source, WindowConfig
from storage.objects.atomic import replace_file

EMBEDDINGS_NAME = "embeddings.npy"
BOXES_NAME = "boxes.npz"
DESCRIPTION_NAME = "windows.json"
WINDOWS_AT_ONCE = 4
"""Number of windows that are encoded together."""


@dataclass(frozen=True, kw_only=True)
class EncodedWindows:
    """Windows of training images: the embedding of each, and the boxes of all its masks."""

    embeddings_NCEE: np.ndarray
    """Embeddings, float16, mapped from a file."""
    boxes_M4: np.ndarray
    """Boxes of all windows in pixels of the SAM's input, float32, half-open."""
    ends_N: np.ndarray
    """Number of boxes up to and including each window, int64."""

    def __len__(self) -> int:
        return len(self.embeddings_NCEE)

    def embeddings(self, numbers: np.ndarray) -> Tensor:
        """Read the embeddings of some windows; float32 [B, C, E, E]."""
        return torch.from_numpy(self.embeddings_NCEE[np.sort(numbers)].astype(np.float32))

    def boxes(self, numbers: np.ndarray) -> list[Tensor]:
        """Return the boxes of some windows, in the order of `embeddings`; float32 [N, 4] each."""
        starts = np.concatenate([[0], self.ends_N[:-1]])
        return [torch.from_numpy(self.boxes_M4[starts[n] : self.ends_N[n]]) for n in np.sort(numbers)]


def encode_windows(
    sam: Sam,
    encoder_id: str,
    source: Source,
    window: WindowConfig,
    *,
    count: int,
    seed: int,
    folder: Path,
    made_of: dict[str, object],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EncodedWindows:
    """Cut `count` windows of a source, with all their masks, and encode them; or open the folder that holds them.

    Window number n follows from the seed and n alone.

    Args:
        encoder_id: id of the SAM's image encoder; embeddings of another encoder are not used.
        made_of: description of the source as JSON values; windows of another description are not used.
    """
    described = {"encoder": encoder_id, "source": made_of, "window": asdict(window), "count": count, "seed": seed}
    text = json.dumps(described, sort_keys=True)
    folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (folder / DESCRIPTION_NAME).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _fill(sam, source, window, count, seed, folder, on_progress)
        replace_file(folder / DESCRIPTION_NAME, lambda file: file.write(text.encode()))
    boxes = np.load(folder / BOXES_NAME)
    return EncodedWindows(
        embeddings_NCEE=np.load(folder / EMBEDDINGS_NAME, mmap_mode="r"),
        boxes_M4=boxes["boxes_M4"],
        ends_N=boxes["ends_N"],
    )


def boxes_of(masks_NHW: np.ndarray) -> np.ndarray:
    """Compute the half-open boxes of masks that are not empty; float32 [N, 4]."""
    rows_NH: np.ndarray = np.any(masks_NHW, axis=2)
    columns_NW: np.ndarray = np.any(masks_NHW, axis=1)
    x0_N, y0_N = columns_NW.argmax(1), rows_NH.argmax(1)
    x1_N = columns_NW.shape[1] - columns_NW[:, ::-1].argmax(1)
    y1_N = rows_NH.shape[1] - rows_NH[:, ::-1].argmax(1)
    return np.stack([x0_N, y0_N, x1_N, y1_N], 1).astype(np.float32)


@torch.inference_mode()
def _fill(
    sam: Sam,
    source: Source,
    window: WindowConfig,
    count: int,
    seed: int,
    folder: Path,
    on_progress: Callable[[int, int], None],
) -> None:
    side = sam.config.embedding_side
    shape = (count, sam.config.width, side, side)
    embeddings = np.lib.format.open_memmap(folder / EMBEDDINGS_NAME, mode="w+", dtype=np.float16, shape=shape)
    boxes: list[np.ndarray] = []
    for first in range(0, count, WINDOWS_AT_ONCE):
        on_progress(first, count)
        numbers = range(first, min(first + WINDOWS_AT_ONCE, count))
        cuts = [_cut(source, window, seed, number) for number in numbers]
        pixels_B3SS = torch.stack([sam.preprocess(cut.image_HW3) for cut in cuts])
        embeddings[numbers.start : numbers.stop] = sam.encode(pixels_B3SS).cpu().numpy()
        boxes += [_model_boxes(cut, sam.config.input_side) for cut in cuts]
    on_progress(count, count)
    embeddings.flush()
    ends_N = np.cumsum([len(each) for each in boxes])
    np.savez(folder / BOXES_NAME, boxes_M4=np.concatenate(boxes), ends_N=ends_N)


def _cut(source: Source, window: WindowConfig, seed: int, number: int) -> Cut:
    rng = np.random.default_rng([seed, number])
    source.prepare(number)
    cut = source.cut_all(rng, number, window)
    return Cut(image_HW3=jitter_colours(cut.image_HW3, rng), masks_NHW=cut.masks_NHW)


def _model_boxes(cut: Cut, side: int) -> np.ndarray:
    """Compute the boxes of a cut's masks in pixels of the SAM's input, into which `Sam.preprocess` scales the cut."""
    frame = Frame.whole((cut.image_HW3.shape[0], cut.image_HW3.shape[1]), side)
    return frame.boxes_to_model(boxes_of(cut.masks_NHW)).astype(np.float32)
