"""Training samples: windows cut from labelled images, each with ground-truth masks and a first prompt on every mask.

The seed, the step and the position in the global batch decide everything about a sample: its image, its window, its
masks and the random numbers of its later clicks. So a resumed training sees the same data, and so does the same
training spread over more processes.

Samples are made in numpy on the CPU. Pixels and masks travel as bytes and become floating-point numbers on the device
that trains.

B is the number of this process's images, P = B * prompts per image, S the window's side in px, L = S / cell_px the side
in cells of a low-resolution mask, R the number of correction rounds.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from engine.training.annotator import CENTRED_FRACTION, first_click, noisy_box
from engine.training.augment import jitter_colours
from engine.training.sources import Source, WindowConfig

CELL_PX = 2
"""Window pixels per cell side of the low-resolution masks: a quarter of the hybrid encoder's stride of 8. ViTs have 4.
"""

Samples = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples that one process trains on in one step."""

    pixels_B3SS: Tensor
    """Windows, float32, normalised, zero where padded."""
    targets_PLL: Tensor
    """Ground truth, float32 in [0, 1]: fraction of each cell that the mask covers."""
    clicks_P2: Tensor
    """First clicks (x, y), float32, in window pixels."""
    boxes_P4: Tensor
    """First boxes (x0, y0, x1, y1) with noise on every side, float32, in window pixels."""
    is_box_P: Tensor
    """Choice of each first prompt, bool: true takes the box, false the click."""
    uniforms_RP3: Tensor
    """Random numbers of each correction click, float32 in [0, 1)."""
    weights_P: Tensor
    """Weight of each target in the losses of predicted masks, float32; 0 for a rejected mask."""
    rejected_P: Tensor
    """Whether people rejected the target, bool: then it is no ground truth."""

    def to(self, device: torch.device | str) -> "Batch":
        """Copy the batch to another device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def parts(self, images: int) -> "list[Batch]":
        """Split the batch into parts of at most `images` images."""
        count = len(self.pixels_B3SS)
        prompts = len(self.clicks_P2) // count
        return [self._part(first, min(first + images, count), prompts) for first in range(0, count, images)]

    def _part(self, first: int, last: int, prompts: int) -> "Batch":
        rows = slice(first * prompts, last * prompts)
        return Batch(
            pixels_B3SS=self.pixels_B3SS[first:last],
            targets_PLL=self.targets_PLL[rows],
            clicks_P2=self.clicks_P2[rows],
            boxes_P4=self.boxes_P4[rows],
            is_box_P=self.is_box_P[rows],
            uniforms_RP3=self.uniforms_RP3[:, rows],
            weights_P=self.weights_P[rows],
            rejected_P=self.rejected_P[rows],
        )


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Settings of how batches are made."""

    seed: int
    prompts: int
    """Number of masks per image, each with one prompt."""
    box_fraction: float = 0.2
    """Fraction of first prompts that are boxes; 0.5 in the paper."""
    centred_fraction: float = CENTRED_FRACTION
    """Fraction of first clicks drawn near the point farthest from the boundary, where the others fall anywhere in the
    mask; 0 in the paper.
    """
    max_corrections: int = 3
    """Maximum number of clicks that may follow the first prompt; 8 in the paper."""
    colour_jitter: bool = True
    """Whether to change the colours of some images; the paper's last stages change none."""
    pixel_mean: tuple[float, float, float]
    """Mean of red, green and blue on the 0..255 scale, from the model's preprocessing."""
    pixel_std: tuple[float, float, float]
    """Standard deviation of red, green and blue on the 0..255 scale, from the model's preprocessing."""


def make_batch(
    source: Source,
    config: BatchConfig,
    window: WindowConfig,
    *,
    step: int,
    positions: range,
    cell_px: int = CELL_PX,
    device: torch.device | str = "cpu",
) -> Batch:
    """Make the samples of a step at `positions` of the global batch, as a batch on `device`."""
    samples = make_samples(source, config, window, step=step, positions=positions, cell_px=cell_px)
    return to_batch(samples, config, torch.device(device))


def make_samples(
    source: Source, config: BatchConfig, window: WindowConfig, *, step: int, positions: range, cell_px: int
) -> Samples:
    """Make the tensors on the CPU that `to_batch` turns into a batch; pixels and masks are bytes."""
    samples = [_make_sample(source, config, window, step, position, cell_px) for position in positions]
    stacked = {name: [sample[name] for sample in samples] for name in samples[0]}
    arrays = {
        "pixels_BSS3": np.stack(stacked["pixels"]),
        "content_B2": np.stack(stacked["content"]),
        "covered_PLL": np.concatenate(stacked["covered"]),
        "cell_area": np.array([cell_px**2]),
        "clicks_P2": np.concatenate(stacked["clicks"]),
        "boxes_P4": np.concatenate(stacked["boxes"]),
        "is_box_P": np.concatenate(stacked["is_box"]),
        "uniforms_RP3": np.concatenate(stacked["uniforms"], 1),
        "weights_P": np.concatenate(stacked["weights"]),
        "rejected_P": np.concatenate(stacked["rejected"]),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def to_batch(samples: Samples, config: BatchConfig, device: torch.device) -> Batch:
    """Turn samples into a batch on `device`: normalise pixels, set padding to zero, average masks over cells."""
    here = {name: _to_device(tensor, device) for name, tensor in samples.items() if name != "cell_area"}
    mean_3, std_3 = (_to_device(torch.tensor(values), device) for values in (config.pixel_mean, config.pixel_std))
    pixels_BSS3 = here["pixels_BSS3"]
    axis_S = torch.arange(pixels_BSS3.shape[1], device=device)
    within_BS, within_BT = (axis_S < side_B1 for side_B1 in here["content_B2"].unsqueeze(2).unbind(1))
    normalised_BSS3 = (pixels_BSS3.float() - mean_3) / std_3
    padded_BSS3 = torch.where((within_BS[:, :, None] & within_BT[:, None, :])[..., None], normalised_BSS3, 0.0)
    return Batch(
        pixels_B3SS=padded_BSS3.permute(0, 3, 1, 2),  # which is channels-last in memory
        targets_PLL=here["covered_PLL"].float() / int(samples["cell_area"]),
        clicks_P2=here["clicks_P2"],
        boxes_P4=here["boxes_P4"],
        is_box_P=here["is_box_P"],
        uniforms_RP3=here["uniforms_RP3"],
        weights_P=here["weights_P"],
        rejected_P=here["rejected_P"],
    )


def _make_sample(
    source: Source, config: BatchConfig, window: WindowConfig, step: int, position: int, cell_px: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([config.seed, step, position])
    cut = source.cut(rng, step, window, config.prompts)
    side, cells = window.side_px, window.side_px // cell_px
    height, width = cut.image_HW3.shape[:2]
    pixels_SS3 = np.zeros((side, side, 3), np.uint8)
    pixels_SS3[:height, :width] = jitter_colours(cut.image_HW3, rng) if config.colour_jitter else cut.image_HW3
    masks_PSS = np.zeros((config.prompts, side, side), np.uint8)
    masks_PSS[:, :height, :width] = cut.masks_NHW
    return {
        "pixels": pixels_SS3,
        "content": np.array([height, width]),
        "covered": masks_PSS.reshape(config.prompts, cells, cell_px, cells, cell_px).sum((2, 4), dtype=np.uint8),
        "clicks": np.stack([first_click(mask, rng, config.centred_fraction) for mask in cut.masks_NHW]),
        "boxes": np.stack([noisy_box(mask, rng) for mask in cut.masks_NHW]),
        "is_box": rng.random(config.prompts) < config.box_fraction,
        "uniforms": rng.random((config.max_corrections, config.prompts, 3), dtype=np.float32),
        "weights": np.ones(config.prompts, np.float32) if cut.weights_N is None else cut.weights_N,
        "rejected": np.zeros(config.prompts, np.bool_) if cut.rejected_N is None else cut.rejected_N,
    }


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for the work that a GPU has before it."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
