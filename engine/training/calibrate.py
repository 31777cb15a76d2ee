"""Calibration of the IoU head: a line for each mask token from predicted to true IoU, folded into the head's weights.

A head trained on scenes is overconfident on photos, by different amounts for the three masks of a click, so that it
ranks them wrongly. One line per mask token (the decoder's input that yields one mask) keeps the order among masks of
the same token and corrects the order between tokens.

P is the number of prompts, M = 4 the number of mask tokens.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.labelled import LabelledImage
from engine.model.sam import Sam
from engine.training.batches import Batch, BatchConfig, make_batch
from engine.training.losses import mask_iou
from engine.training.photos import PhotoSource
from engine.training.sources import Source, WindowConfig
from engine.training.step import decode_window, encode_prompts, image_of_prompts

SLOPES = (0.6, 1.0)
"""Limits of a fitted slope. Flatter slopes mostly come from clicks that were meant for another object. Least squares
without limits ranks no better on unseen photos, ranks worse on scenes, and suppresses the token for large masks in the
automatic generator.
"""
SMALLEST_VARIANCE = 1e-4
WHOLE_IMAGES = (1e-6, 1e-6)
"""Zoom that shows whole images in windows, as annotators and the automatic generator see them; the image's sides limit
how far a window really zooms out.
"""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """Settings of the data that the IoU head is calibrated on."""

    images_per_source: int = 40
    """Number of windows of scenes, and of windows of each domain of photos."""
    prompts: int = 24
    """Number of first clicks per window."""
    aspects: tuple[float, ...] = (0.667, 0.75, 1.0)
    """Ratios of the shorter to the longer side that windows have."""
    seed: int = 1
    """Seed of the windows and clicks."""


@dataclass(frozen=True, kw_only=True)
class IouPairs:
    """Predicted and true IoU of the four masks decoded for each first click."""

    predicted_P4: Tensor
    """IoU that the head predicts, float32."""
    true_P4: Tensor
    """True IoU, float32 in [0, 1], on the grid of the low-resolution logits."""

    def summary(self) -> dict[str, float]:
        """Count the clicks; compute the mean true IoU of the mask ranked first and of the best of three masks.

        These metrics are quick, since they are computed on windows at the resolution of the logits. They compare a
        model before and after its training. `engine.evaluation.clicked` measures images at full resolution instead.
        """
        predicted_P3, true_P3 = self.predicted_P4[:, 1:], self.true_P4[:, 1:]
        chosen_P = true_P3.gather(1, predicted_P3.argmax(1, keepdim=True))
        return {
            "clicks": len(true_P3),
            "chosen": round(float(chosen_P.mean()), 4),
            "best_of_3": round(float(true_P3.amax(1).mean()), 4),
        }


def calibrate(
    sam: Sam,
    batch: BatchConfig,
    scenes: Source,
    photos: Sequence[LabelledImage],
    config: CalibrationConfig | None = None,
) -> dict[str, Any]:
    """Calibrate the IoU head on equally many windows of the scenes and of each domain of photos.

    A line from predicted to true IoU is fitted for each mask token, and folded into the IoU head's weights.

    Returns:
        Description of the calibration, for the model card.
    """
    domains = sorted({image.domain for image in photos})
    sources: dict[str, Source] = {"scenes": scenes}
    sources |= {name: PhotoSource([image for image in photos if image.domain == name]) for name in domains}
    names = sorted(f"{image.domain}/{image.stem}" for image in photos)
    return calibrate_on(sam, batch, sources, config) | {"photographs": names}


def calibrate_on(
    sam: Sam, batch: BatchConfig, sources: Mapping[str, Source], config: CalibrationConfig | None = None
) -> dict[str, Any]:
    """Calibrate the IoU head on equally many windows of each source.

    A line from predicted to true IoU is fitted for each mask token, and folded into the IoU head's weights.

    Returns:
        Description of the calibration, for the model card.

    Raises:
        ValueError: The predictions of a token hardly vary, so that no line can be fitted.
    """
    config = config or CalibrationConfig()
    per_source = {name: first_click_pairs(sam, batch, source, config) for name, source in sources.items()}
    lines_42 = fit_lines(
        IouPairs(
            predicted_P4=torch.cat([pairs.predicted_P4 for pairs in per_source.values()]),
            true_P4=torch.cat([pairs.true_P4 for pairs in per_source.values()]),
        )
    )
    fold_lines(sam, lines_42)
    return {
        "clicks": {name: len(pairs.true_P4) for name, pairs in per_source.items()},
        "slopes_and_offsets": [[round(value, 4) for value in line] for line in lines_42.tolist()],
    }


def first_click_pairs(sam: Sam, batch: BatchConfig, source: Source, config: CalibrationConfig) -> IouPairs:
    """Decode first clicks on whole images of a source, and compare predicted with true IoU."""
    asked = replace(batch, seed=config.seed, prompts=config.prompts, box_fraction=0.0)
    window = WindowConfig(side_px=sam.config.input_side, zoom=WHOLE_IMAGES, aspects=config.aspects)
    return collect_iou_pairs(sam, _batches(sam, source, asked, window, config.images_per_source))


@torch.inference_mode()
def collect_iou_pairs(sam: Sam, batches: Iterable[Batch]) -> IouPairs:
    """Decode the first clicks of batches of whole images and compare predicted with true IoU, in evaluation mode."""
    predicted, true = [], []
    for batch in batches:
        embeddings_BCEE = sam.encode(batch.pixels_B3SS)
        image_index_P = image_of_prompts(batch, embeddings_BCEE)
        labels_PK = torch.ones_like(image_index_P)[:, None]
        sparse_PTC = encode_prompts(sam, batch, batch.clicks_P2[:, None], labels_PK, (0, 0))
        predictions = decode_window(
            sam, embeddings_BCEE, image_index_P, sparse_PTC, None, corner_cells_xy=(0, 0), bf16=False
        )
        predicted.append(predictions.predicted_iou_P4.cpu())
        true.append(mask_iou(predictions.logits_P4LL, batch.targets_PLL.unsqueeze(1)).cpu())
    return IouPairs(predicted_P4=torch.cat(predicted), true_P4=torch.cat(true))


def fit_lines(pairs: IouPairs) -> Tensor:
    """Fit a slope, kept within `SLOPES`, and an offset for each mask token by least squares: float32 [4, 2].

    Raises:
        ValueError: The predictions of a token hardly vary, so that no line can be fitted.
    """
    predicted_P4, true_P4 = pairs.predicted_P4.double(), pairs.true_P4.double()
    centred_P4 = predicted_P4 - predicted_P4.mean(0)
    variance_4 = centred_P4.square().mean(0)
    if (variance_4 < SMALLEST_VARIANCE).any():
        raise ValueError(
            f"the IoU head's predictions vary by {variance_4.sqrt().tolist()} over {len(predicted_P4)} clicks, too "
            f"little to calibrate it: collect more clicks, or train longer"
        )
    slope_4 = (centred_P4 * (true_P4 - true_P4.mean(0))).mean(0) / variance_4
    slope_4 = slope_4.clamp(*SLOPES)
    offset_4 = true_P4.mean(0) - slope_4 * predicted_P4.mean(0)
    return torch.stack([slope_4, offset_4], 1).float()


@torch.no_grad()
def fold_lines(sam: Sam, lines_42: Tensor) -> None:
    """Fold the lines into the IoU head's last layer, so that the head predicts slope x old prediction + offset."""
    last = sam.mask_decoder.iou_prediction_head.layers[-1]
    assert isinstance(last, nn.Linear)
    lines_42 = lines_42.to(last.weight.device)
    last.weight.mul_(lines_42[:, :1])
    last.bias.mul_(lines_42[:, 0]).add_(lines_42[:, 1])


def _batches(sam: Sam, source: Source, config: BatchConfig, window: WindowConfig, images: int) -> Iterator[Batch]:
    cell_px = sam.config.embedding_stride // 4
    for step in range(images):
        source.prepare(step)
        yield make_batch(source, config, window, step=step, positions=range(1), cell_px=cell_px, device=sam.device)
