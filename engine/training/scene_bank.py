"""Bank of procedural scenes on disk: each scene serves many windows, and scenes can be made beside the training.

Chunk k holds the scenes that the generator makes from a seed that follows from k. The bank is therefore a cache: the
chunks that are already on disk change how long a step takes, never what the step sees. The number of a step decides how
many scenes the step may draw from.
"""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from engine.scenes.batch import SceneBatch
from engine.training.augment import content_size, draw_crop, scale
from engine.training.sources import Cut, WindowConfig

TREE_DRAW_FRACTION = 0.75
"""Fraction of masks drawn evenly over the leaves of a scene's tree of objects and parts, so that small ones are seen;
the other masks are drawn evenly over pixels.
"""
DRAWS_PER_PROMPT = 5
OPEN_CHUNKS = 512


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Settings of a bank of scenes: the number of chunks at each step, and of scenes in each chunk."""

    seed: int
    chunk_scenes: int = 16
    first_chunks: int = 64
    """Number of chunks that step 0 draws from."""
    chunks_per_step: float = 0.2
    """Number of chunks that each step adds to `first_chunks`."""
    max_chunks: int = 1000

    def chunks_at(self, step: int) -> int:
        """Compute the number of chunks that a step may draw scenes from."""
        return min(self.max_chunks, self.first_chunks + int(step * self.chunks_per_step))


class SceneBank:
    """Chunks of scenes in a folder; a chunk is made when it is first needed."""

    def __init__(self, folder: Path, config: BankConfig, generate: Callable[[int, int], SceneBatch]) -> None:
        """Open the bank in a folder.

        Args:
            folder: the folder of the chunks.
            config: number of scenes per chunk and of chunks.
            generate: function that makes a chunk of scenes from (seed, count).
        """
        self.folder = folder
        self.config = config
        self._generate = generate
        self.chunk = lru_cache(maxsize=OPEN_CHUNKS)(self._open)
        self._prepared = 0
        folder.mkdir(parents=True, exist_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, without the open chunks."""
        return {"folder": self.folder, "config": self.config, "generate": self._generate}

    def __setstate__(self, state: dict[str, Any]) -> None:
        SceneBank.__init__(self, **state)

    def has(self, number: int) -> bool:
        """Tell whether a chunk is on disk."""
        return self._path(number).is_dir()

    def make(self, number: int) -> None:
        """Generate a chunk and write it to disk, unless another process writes the same chunk first."""
        scenes = self._generate(self.config.seed + number, self.config.chunk_scenes)
        unfinished = self.folder / f"unfinished-{number:06}-{uuid.uuid4().hex}"
        unfinished.mkdir()
        np.save(unfinished / "images.npy", scenes.images_B3HW.permute(0, 2, 3, 1).contiguous().cpu().numpy())
        np.save(unfinished / "ids.npy", scenes.ids_BHW.cpu().numpy().astype(np.uint16))
        np.savez(
            unfinished / "tree.npz",
            part_BL=scenes.part_BL.cpu().numpy(),
            whole_BL=scenes.whole_BL.cpu().numpy(),
            leaves_B=scenes.leaves_B.cpu().numpy(),
        )
        try:
            unfinished.rename(self._path(number))
        except OSError:
            if not self.has(number):
                raise
            shutil.rmtree(unfinished)

    def prepare(self, step: int) -> None:
        """Make the missing chunks among those that a step may draw scenes from."""
        for number in range(self._prepared, self.config.chunks_at(step)):
            if not self.has(number):
                self.make(number)
            self._prepared = number + 1

    def cut(self, rng: Generator, step: int, window: WindowConfig, prompts: int) -> Cut:
        """Cut a window of a random scene; each mask is a whole, a part or a sub-part, at random."""
        while True:
            shown = self._draw_window(rng, step, window)
            masks = _draw_masks(shown, rng, window, prompts)
            if masks is not None:
                return Cut(image_HW3=shown.image_HW3, masks_NHW=masks)

    def cut_all(self, rng: Generator, step: int, window: WindowConfig) -> Cut:
        """Cut a window of a random scene, with the mask of every whole, part and sub-part of a size to train on."""
        while True:
            shown = self._draw_window(rng, step, window)
            masks = _all_masks(shown, window)
            if masks:
                return Cut(image_HW3=shown.image_HW3, masks_NHW=np.stack(masks).astype(np.uint8))

    def _draw_window(self, rng: Generator, step: int, window: WindowConfig) -> "_SceneWindow":
        chunk = self.chunk(int(rng.integers(self.config.chunks_at(step))))
        return _cut_scene(chunk, int(rng.integers(len(chunk.images))), rng, window)

    def _path(self, number: int) -> Path:
        return self.folder / f"chunk-{number:06}"

    def _open(self, number: int) -> "_Chunk":
        if not self.has(number):
            self.make(number)
        path = self._path(number)
        tree = np.load(path / "tree.npz")
        return _Chunk(
            images=np.load(path / "images.npy", mmap_mode="r"),
            ids=np.load(path / "ids.npy", mmap_mode="r"),
            levels_B3L=np.stack([_leaf_numbers(tree["part_BL"]), tree["part_BL"], tree["whole_BL"]], 1),
            leaves_B=tree["leaves_B"],
        )


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    images: np.ndarray
    ids: np.ndarray
    levels_B3L: np.ndarray
    leaves_B: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _SceneWindow:
    image_HW3: np.ndarray
    ids_HW: np.ndarray
    """Leaf of each pixel."""
    levels_3L: np.ndarray
    """Sub-part, part and whole that each leaf belongs to."""


def _leaf_numbers(part_BL: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(part_BL.shape[1], dtype=part_BL.dtype), part_BL.shape)


def _cut_scene(chunk: _Chunk, scene: int, rng: Generator, window: WindowConfig) -> _SceneWindow:
    """Cut a window of a scene, turned and mirrored."""
    content_hw = content_size(window, rng)
    quarter_turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
    turned_hw = content_hw[::-1] if quarter_turns % 2 else content_hw
    rows, columns = draw_crop(chunk.ids.shape[1:], turned_hw, window.zoom, rng)
    image_HW3 = _turn(scale(chunk.images[scene, rows, columns], turned_hw), quarter_turns, mirrored)
    ids_HW = _turn(scale(chunk.ids[scene, rows, columns], turned_hw, nearest=True), quarter_turns, mirrored)
    levels_3L = chunk.levels_B3L[scene, :, : chunk.leaves_B[scene]]
    return _SceneWindow(image_HW3=image_HW3, ids_HW=ids_HW, levels_3L=levels_3L)


def _all_masks(shown: _SceneWindow, window: WindowConfig) -> list[np.ndarray]:
    """Return the mask of every distinct whole, part and sub-part of a size to train on, bool [H, W] each."""
    pixels_L = np.bincount(shown.ids_HW.ravel(), minlength=shown.levels_3L.shape[1])
    max_px = window.max_mask_fraction * shown.ids_HW.size
    masks: dict[bytes, np.ndarray] = {}
    for level_L in shown.levels_3L:
        for node in np.unique(level_L[pixels_L > 0]):
            members_L = (level_L == node) & (pixels_L > 0)
            key = members_L.tobytes()  # a level that adds nothing to the one below is the same mask again
            if key not in masks and window.min_mask_px <= pixels_L[members_L].sum() <= max_px:
                masks[key] = members_L[shown.ids_HW]
    return list(masks.values())


def _draw_masks(shown: _SceneWindow, rng: Generator, window: WindowConfig, prompts: int) -> np.ndarray | None:
    """Draw masks, uint8 [prompts, H, W]: each from a leaf of the tree (drawn evenly or by its pixels) and a level.

    Return None when the window shows too few masks of a size to train on.
    """
    ids_HW, levels_3L = shown.ids_HW, shown.levels_3L
    pixels_L = np.bincount(ids_HW.ravel(), minlength=levels_3L.shape[1])
    pixels_3L = np.stack([np.bincount(level_L, pixels_L, minlength=len(level_L))[level_L] for level_L in levels_3L])
    visible = np.flatnonzero(pixels_L)
    most_px = window.max_mask_fraction * ids_HW.size
    masks: list[np.ndarray] = []
    for _ in range(DRAWS_PER_PROMPT * prompts):
        if rng.random() < TREE_DRAW_FRACTION:
            leaf = visible[rng.integers(len(visible))]
        else:
            leaf = ids_HW[rng.integers(ids_HW.shape[0]), rng.integers(ids_HW.shape[1])]
        # A level that adds nothing to the one below is the same mask again.
        distinct = [k for k in range(3) if k == 0 or pixels_3L[k, leaf] > pixels_3L[:k, leaf].max()]
        level = distinct[rng.integers(len(distinct))]
        if window.min_mask_px <= pixels_3L[level, leaf] <= most_px:
            members_L = levels_3L[level] == levels_3L[level, leaf]
            masks.append(members_L[ids_HW])
            if len(masks) == prompts:
                return np.stack(masks).astype(np.uint8)
    if len(masks) < prompts // 2:
        return None
    return np.stack([masks[k % len(masks)] for k in range(prompts)]).astype(np.uint8)


def _turn(image: np.ndarray, quarter_turns: int, mirrored: bool) -> np.ndarray:
    turned = np.rot90(image, quarter_turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)
