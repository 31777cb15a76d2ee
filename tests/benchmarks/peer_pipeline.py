"""Peer of the automatic generator: the mask-generation pipeline of the transformers package, on our weights.

Differences of the pipeline from the paper ("Segment Anything", appendix B) and from the original code:
- Masks of all crops go through one NMS ranked by predicted IoU; the paper ranks within a crop by predicted IoU, and
  across crops by zoom. Without crops the two are the same, so parity is measured without.
- Stability must exceed its threshold; in the original code it must reach it.
- It measures the stability of all masks, also of those whose predicted IoU fails; it has no 95 % filter, and cleans no
  small regions. Parity runs switch ours off.
It runs without torchvision here: the one function that it needs is provided during the call.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import Generated
from engine.model.sam import Sam
from storage import rle
from storage.rle import Rle

POINTS_PER_BATCH = 64
"""Default of the pipeline."""


@dataclass(frozen=True, kw_only=True)
class PeerPipeline:
    """Pipeline and the network it was made from."""

    pipeline: Any
    sam: Sam


def make_peer(sam: Sam) -> PeerPipeline:
    """Make the pipeline with a network's weights. Its image encoder is the network's own, whatever its kind."""
    from transformers import MaskGenerationPipeline
    from transformers.models.sam import image_processing_pil_sam as processing

    side = sam.config.input_side
    processor = processing.SamImageProcessorPil(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    # the method itself would refuse to run without torchvision; what it calls needs `batched_nms` alone
    processor.post_process_for_mask_generation = processing._post_process_for_mask_generation
    return PeerPipeline(pipeline=MaskGenerationPipeline(model=_peer_network(sam), image_processor=processor), sam=sam)


def peer_masks(peer: PeerPipeline, image_HW3: np.ndarray, config: GenerateConfig) -> list[Rle]:
    """Make the peer's masks of an image; our encoder computes the embedding from our pixels, inside the call."""
    from PIL import Image

    assert config.predicted_iou_threshold is not None
    assert config.stability_threshold is not None
    with our_encoder(peer, image_HW3), plain_batched_nms():
        found = peer.pipeline(
            Image.fromarray(image_HW3),
            points_per_batch=POINTS_PER_BATCH,
            points_per_crop=config.points_per_side,
            pred_iou_thresh=config.predicted_iou_threshold,
            stability_score_thresh=config.stability_threshold,
            stability_score_offset=config.stability_offset,
            crops_nms_thresh=config.box_nms_threshold,
            output_rle_mask=True,
        )
    return [
        Rle(height=each["size"][0], width=each["size"][1], counts=np.array(each["counts"], dtype=np.uint32))
        for each in found["rle_mask"]
    ]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One-to-one matches of two lists of masks of one image."""

    ours: int
    peers: int
    matched: int

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            ours=self.ours + other.ours, peers=self.peers + other.peers, matched=self.matched + other.matched
        )

    @property
    def share(self) -> float:
        """Matched masks over the longer list: the lower of the two directions."""
        return self.matched / max(self.ours, self.peers, 1)


def agreement(ours: list[Rle], peers: list[Rle], *, least_iou: float = 0.99) -> Agreement:
    """Match each of our masks, in order, to the nearest unmatched one of the peer's, if near enough."""
    iou_NM = rle.iou_matrix(ours, peers)
    matched = 0
    for i in range(len(ours)):
        nearest = int(iou_NM[i].argmax()) if len(peers) else 0
        if len(peers) and iou_NM[i, nearest] >= least_iou:
            iou_NM[:, nearest] = -1
            matched += 1
    return Agreement(ours=len(ours), peers=len(peers), matched=matched)


def open_thresholds(
    every: Generated, config: GenerateConfig, *, iou_quantile: float, stability_quantile: float
) -> GenerateConfig:
    """Set thresholds of `config` at quantiles of an image's own scores: predicted IoU, then stability.

    The stability is that of those that pass. `every` was made with both thresholds at 0 and NMS off.

    The returned config leaves out what the peer does not have: the 95 % filter and the clean-up.
    """
    ious = np.array([mask.predicted_iou for mask in every.masks])
    stabilities = np.array([mask.stability_score for mask in every.masks])
    iou_threshold = _between(ious, iou_quantile)
    return like_the_peer(config, iou_threshold, _between(stabilities[ious > iou_threshold], stability_quantile))


def _between(scores: np.ndarray, quantile: float) -> float:
    """Compute a quantile that is not itself a score, at which the sides differ: "above" against "at or above"."""
    ordered = np.unique(scores)
    above = min(max(1, round(quantile * len(ordered))), len(ordered) - 1)
    return float(ordered[above - 1 : above + 1].mean(dtype=np.float64))


def like_the_peer(config: GenerateConfig, predicted_iou: float, stability: float) -> GenerateConfig:
    """Set these thresholds in `config`, and switch off what the peer lacks."""
    from dataclasses import replace

    return replace(
        config,
        predicted_iou_threshold=predicted_iou,
        stability_threshold=stability,
        min_region_px=0,
        max_area_fraction=None,
    )


@contextmanager
def our_encoder(peer: PeerPipeline, image_HW3: np.ndarray) -> Iterator[None]:
    """Give the peer's network its embedding from our encoder during the block."""

    def encode(_pixels: torch.Tensor) -> torch.Tensor:
        return peer.sam.encode(peer.sam.preprocess(image_HW3)[None])

    with mock.patch.object(peer.pipeline.model, "get_image_embeddings", encode):
        yield


@contextmanager
def plain_batched_nms() -> Iterator[None]:
    """Provide `torchvision.ops.boxes.batched_nms` during the block: greedy NMS for a single class."""
    names = ["torchvision", "torchvision.ops", "torchvision.ops.boxes"]
    modules = {name: ModuleType(name) for name in names}
    modules["torchvision.ops.boxes"].batched_nms = _batched_nms  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, modules):
        yield


def _batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Suppress boxes by torchvision's rule, written apart from ours: float32 areas, dropped above the threshold."""
    assert not idxs.any()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    waiting = scores.argsort(descending=True, stable=True)
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[waiting, :2])
        high = torch.minimum(boxes[best, 2:], boxes[waiting, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        overlap = shared / (areas[best] + areas[waiting] - shared)
        waiting = waiting[~(overlap > iou_threshold)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)


def _peer_network(sam: Sam) -> Any:
    """Make the SamModel that the network tests compare with."""
    path = Path(__file__).resolve().parents[1] / "engine" / "conftest.py"
    spec = importlib.util.spec_from_file_location("network_peer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.peer_of(sam)
