"""Which images are worth a person's time next: features that a model gives an image, and rankings by them.

Shape letters: N images to rank, K images that are known already, C channels of an embedding, P prompts of an image, R x
Q rows and columns of a low-resolution mask without the padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from engine.images import Frame, check_image
from engine.model.sam import Sam
from engine.model.weights import Model
from engine.prompts import Prompts, point_grid
from engine.selection.config import Ranking

POINTS_PER_SIDE = 6
"""Side of the grid of prompts by which an image is judged."""
MAX_COSINE = 0.995
"""Cosine of two embeddings above which the second image counts as a duplicate of the first and is ranked last."""


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What a model makes of an image before anybody has masked it."""

    embedding_C: np.ndarray
    """Mean of the image's embedding over its cells, float32, of length 1."""
    iou_spread: float
    """Mean over a grid of points of the standard deviation of the three predicted IoUs."""
    disagreement: float
    """Mean over a grid of points, in [0, 1]: 1 - IoU of a point's best mask and of the best mask of that one's centre.
    """


@torch.inference_mode()
def describe_image(model: Model, image_HW3: np.ndarray) -> ImageFeatures:
    """Describe an image, uint8 RGB [H, W, 3], by its embedding and by masks of a grid of points."""
    check_image(image_HW3)
    sam = model.sam
    height, width = Frame.whole((image_HW3.shape[0], image_HW3.shape[1]), sam.config.input_side).scaled_hw
    embeddings_1CEE = sam.encode(sam.preprocess(image_HW3)[None])

    # The embedding, without the cells of the padding
    rows, columns = (-(-side // sam.config.embedding_stride) for side in (height, width))
    mean_C = embeddings_1CEE[0, :, :rows, :columns].float().mean((1, 2))
    embedding_C = mean_C / mean_C.norm().clamp_min(1e-12)

    # Masks of a grid of points, and of the centre of each such mask
    points_P2 = point_grid(POINTS_PER_SIDE) * [width, height]
    masks_PRQ, iou_P3 = _best_masks(sam, embeddings_1CEE, points_P2, (height, width))
    again_P2 = np.stack(
        [_centre_or(mask_RQ, point_2, sam) for mask_RQ, point_2 in zip(masks_PRQ, points_P2, strict=True)]
    )
    again_PRQ, _ = _best_masks(sam, embeddings_1CEE, again_P2, (height, width))
    both_P, either_P = (masks_PRQ & again_PRQ).sum((1, 2)), (masks_PRQ | again_PRQ).sum((1, 2))
    return ImageFeatures(
        embedding_C=embedding_C.cpu().numpy(),
        iou_spread=float(iou_P3.std(1).mean()),
        disagreement=float(1 - (both_P / np.maximum(either_P, 1)).mean()),
    )


def rank_images(
    ranking: Ranking, features_N: Sequence[ImageFeatures], known_KC: np.ndarray, rng: Generator, *, noise: float
) -> list[int]:
    """Rank images, the one that is most worth a person's time first.

    Args:
        ranking: What counts.
        features_N: Features of the images.
        known_KC: Embeddings of images that people were asked about already, float32; may be empty.
        rng: Generator of the noise.
        noise: Size of the noise on the logarithm of what counts, so that like images are not all drawn (power noise).

    Returns:
        Indices into `features_N`, each once; duplicates of known images and of images ranked before come last.
    """
    embeddings_NC = np.stack([each.embedding_C for each in features_N])
    noise_N = np.exp(noise * rng.gumbel(size=len(features_N)))
    spread_N = np.array([each.iou_spread for each in features_N])
    disagreement_N = np.array([each.disagreement for each in features_N])
    if ranking in ("diversity", "mix"):
        doubt_N = _rank_fractions(spread_N) + _rank_fractions(disagreement_N)
        weight_N = noise_N * (doubt_N if ranking == "mix" else 1.0)
        return _farthest_first(embeddings_NC, known_KC, weight_N)
    score_N = (spread_N if ranking == "uncertainty" else disagreement_N) * noise_N
    return _duplicates_last(np.argsort(-score_N, kind="stable").tolist(), embeddings_NC, known_KC)


def _best_masks(
    sam: Sam, embeddings_1CEE: Tensor, points_P2: np.ndarray, scaled_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Decode the mask of highest predicted IoU of each point (model pixels), bool, and all predicted IoUs."""
    labels_P1 = torch.ones(len(points_P2), 1, dtype=torch.int64)
    prompts = Prompts(points_PK2=torch.from_numpy(points_P2).float()[:, None], labels_PK=labels_P1).to(sam.device)
    decoded = sam.decode(embeddings_1CEE, prompts)
    best_PLL = decoded.logits_PMLL[torch.arange(len(points_P2)), decoded.iou_PM.argmax(1).cpu()]
    rows, columns = (-(-side * sam.config.logits_side // sam.config.input_side) for side in scaled_hw)
    return (best_PLL[:, :rows, :columns] > 0).cpu().numpy(), decoded.iou_PM.float().cpu().numpy()


def _centre_or(mask_RQ: np.ndarray, point_2: np.ndarray, sam: Sam) -> np.ndarray:
    """Find the point (model pixels) of a mask that is farthest from its boundary; the other point if it is empty."""
    if not mask_RQ.any():
        return point_2
    distances_RQ = cv2.distanceTransform(np.pad(mask_RQ.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    row, column = np.unravel_index(distances_RQ[1:-1, 1:-1].argmax(), mask_RQ.shape)
    cell_px = sam.config.input_side / sam.config.logits_side
    return np.array([(column + 0.5) * cell_px, (row + 0.5) * cell_px])


def _farthest_first(embeddings_NC: np.ndarray, known_KC: np.ndarray, weight_N: np.ndarray) -> list[int]:
    """Take again and again the image whose weighted distance to all images taken or known is the largest."""
    nearest_N = _nearest(embeddings_NC, known_KC)
    left_N = np.ones(len(embeddings_NC), dtype=bool)
    ranked: list[int] = []
    while left_N.any():
        distance_N = np.where(np.isinf(nearest_N), 1.0, nearest_N)
        worth_N = np.where(distance_N > 1 - MAX_COSINE, distance_N * weight_N, distance_N - 1)
        taken = int(np.where(left_N, worth_N, -np.inf).argmax())
        ranked.append(taken)
        left_N[taken] = False
        nearest_N = np.minimum(nearest_N, 1 - embeddings_NC @ embeddings_NC[taken])
    return ranked


def _duplicates_last(ranked: Sequence[int], embeddings_NC: np.ndarray, known_KC: np.ndarray) -> list[int]:
    nearest_N = _nearest(embeddings_NC, known_KC)
    first: list[int] = []
    last: list[int] = []
    for number in ranked:
        if nearest_N[number] < 1 - MAX_COSINE:
            last.append(number)
            continue
        first.append(number)
        nearest_N = np.minimum(nearest_N, 1 - embeddings_NC @ embeddings_NC[number])
    return first + last


def _nearest(embeddings_NC: np.ndarray, known_KC: np.ndarray) -> np.ndarray:
    """Compute the distance (1 - cosine) of each image to the nearest known one; infinity where none is known."""
    if not len(known_KC):
        return np.full(len(embeddings_NC), np.inf)
    nearest_N: np.ndarray = 1 - (embeddings_NC @ known_KC.T).max(1)
    return nearest_N


def _rank_fractions(values_N: np.ndarray) -> np.ndarray:
    """Turn values into their ranks, as fractions in (0, 1]."""
    return (values_N.argsort(kind="stable").argsort(kind="stable") + 1) / len(values_N)
