"""Forward pass of one training step: encode a window, decode the first prompts, then correct the masks by clicks.

The source is "Segment Anything", section 3 and appendix A, applied to windows. Positions in SAM are fractions of the
input side. A window that lies at some place of the input frame therefore gets the dense positions of that place, and
its points are shifted there.

B is the number of images, P of prompts, C of channels; H and W are the sides of the window's embedding in cells, L the
side of the logit grid, R the number of correction rounds.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.model.sam import Sam
from engine.training.annotator import DENSITY_POWER, correction_clicks
from engine.training.batches import Batch
from engine.training.losses import min_loss, score_masks


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Settings of the training loss, by default the seed model's. Each field's note gives the SAM paper's value."""

    idle_mask_fraction: float = 0.05
    """Weight of the three masks' mean loss, added to their minimum so that every mask token keeps learning; 0 in the
    paper.
    """
    iou_weight: float = 4.0
    """Weight of the IoU head's squared error. With the paper's 1 it is 2 % of the loss, and the ranking of masks learns
    slowly.
    """
    single_mask_weight: float = 0.25
    """Weight of the single mask's loss on a first prompt, where the three masks of an ambiguous prompt compete; 0 in
    the paper.
    """
    corrected_every: int = 2
    """Interval of the prompts that are corrected: 2 corrects every second prompt; the paper's 1 corrects all. A
    correction costs more than a first prompt: prompts without a mask share the decoder's work on the image.
    """
    density_power: int = DENSITY_POWER
    """Power of the local density of errors that weighs where correction clicks fall (see `correction_clicks`); 0 in the
    paper.
    """


@dataclass(frozen=True, kw_only=True)
class StepScores:
    """Scores of a batch, scalars without gradient, in the order in which the history stores the scores."""

    loss: Tensor
    best_iou: Tensor
    """Mean IoU of the best of the three masks of the first prompt."""
    chosen_iou: Tensor
    """Mean IoU of the mask that the IoU head ranks first, at the first prompt."""
    iou_error: Tensor
    """Mean absolute error of the predicted IoU of the three masks."""
    corrected_iou: Tensor
    """Mean IoU after the step's last correction; in a step without corrections the same as `chosen_iou`."""

    def stacked(self) -> Tensor:
        """Stack the scores in the order of the fields, float32 [5]."""
        return torch.stack([self.loss, self.best_iou, self.chosen_iou, self.iou_error, self.corrected_iou]).float()


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Four masks per prompt that the decoder predicts: 0 is the single mask; 1 to 3 are whole, part and sub-part."""

    logits_P4LL: Tensor
    predicted_iou_P4: Tensor


def forward_step(
    sam: Sam,
    batch: Batch,
    *,
    corner_cells_xy: tuple[int, int],
    rounds: tuple[bool, ...],
    bf16: bool,
    objective: Objective = Objective(),
    branch_factors_L2B: Tensor | None = None,
) -> tuple[Tensor, StepScores]:
    """Compute the loss (a scalar with gradient) and the scores of a batch.

    Args:
        corner_cells_xy: place of the windows in the input frame, in cells.
        rounds: one entry per correction round; true adds a new click, false only gives the previous mask again.
        bf16: whether to compute products in bfloat16.
        branch_factors_L2B: drop path of a ViT encoder, see `ImageEncoder.forward`.
    """
    # Encode the images
    cell_px = sam.config.embedding_stride // 4
    learns = any(parameter.requires_grad for parameter in sam.image_encoder.parameters())
    with _training_arithmetic(batch.pixels_B3SS.device, bf16, differentiates=learns):
        if branch_factors_L2B is None:
            embeddings_BCHW = sam.image_encoder(batch.pixels_B3SS)
        else:
            embeddings_BCHW = sam.image_encoder(batch.pixels_B3SS, branch_factors_L2B)
    image_index_P = image_of_prompts(batch, embeddings_BCHW)

    def predict(points_PK2: Tensor, labels_PK: Tensor, mask_P1LL: Tensor | None) -> Predictions:
        sparse_PTC = encode_prompts(sam, batch, points_PK2, labels_PK, corner_cells_xy)
        return decode_window(
            sam, embeddings_BCHW, image_index_P, sparse_PTC, mask_P1LL, corner_cells_xy=corner_cells_xy, bf16=bf16
        )

    # First prompt
    points_PK2, labels_PK = batch.clicks_P2[:, None], torch.ones_like(image_index_P)[:, None]
    predictions = predict(points_PK2, labels_PK, None)
    scores = score_masks(predictions.logits_P4LL, batch.targets_PLL)
    loss = first_prompt_loss(predictions, scores.loss_PM, scores.iou_PM, objective, batch)
    chosen_P1 = predictions.predicted_iou_P4[:, 1:].argmax(1, keepdim=True) + 1
    chosen_iou = scores.iou_PM.gather(1, chosen_P1).mean()
    corrected_iou = chosen_iou
    previous_P1LL = _take(predictions.logits_P4LL, chosen_P1)

    # Corrections of some prompts
    if rounds:
        some = slice(None, None, objective.corrected_every)
        batch, image_index_P = _some_prompts(batch, some), image_index_P[some]
        points_PK2, labels_PK, previous_P1LL = points_PK2[some], labels_PK[some], previous_P1LL[some]
    for number, clicks_again in enumerate(rounds):
        if clicks_again:
            clicks_P2, click_labels_P = correction_clicks(
                previous_P1LL[:, 0],
                batch.targets_PLL,
                batch.uniforms_RP3[sum(rounds[:number])],
                cell_px,
                objective.density_power,
            )
            points_PK2 = torch.cat([points_PK2, clicks_P2[:, None]], 1)
            labels_PK = torch.cat([labels_PK, click_labels_P[:, None]], 1)
        corrected = predict(points_PK2, labels_PK, previous_P1LL)
        single = score_masks(corrected.logits_P4LL[:, :1], batch.targets_PLL)
        iou_loss = iou_errors(corrected.predicted_iou_P4[:, :1], single.iou_PM, batch.rejected_P).mean()
        loss = loss + (batch.weights_P * single.loss_PM[:, 0]).mean() + objective.iou_weight * iou_loss
        corrected_iou = single.iou_PM.mean()
        previous_P1LL = corrected.logits_P4LL[:, :1].detach()
    loss = loss / (1 + 0.5 * len(rounds))
    return loss, StepScores(
        loss=loss.detach(),
        best_iou=scores.iou_PM[:, 1:].amax(1).mean(),
        chosen_iou=chosen_iou,
        iou_error=(predictions.predicted_iou_P4[:, 1:].detach() - scores.iou_PM[:, 1:]).abs().mean(),
        corrected_iou=corrected_iou,
    )


def image_of_prompts(batch: Batch, embeddings_BCHW: Tensor) -> Tensor:
    """Return the index in the batch of each prompt's image, int64 [P]; every image has equally many prompts."""
    images = len(embeddings_BCHW)
    return torch.arange(images, device=embeddings_BCHW.device).repeat_interleave(len(batch.clicks_P2) // images)


def encode_prompts(
    sam: Sam, batch: Batch, points_PK2: Tensor, labels_PK: Tensor, corner_cells_xy: tuple[int, int]
) -> Tensor:
    """Encode K points per prompt as prompt tokens [P, K + 1, C].

    Where the first prompt is a click, the tokens are K clicks and padding. Where the first prompt is a box, the tokens
    are K - 1 clicks and the box's two corners. The tokens are float32, since bfloat16 cannot tell apart the phases of
    neighbouring pixels.
    """
    encoder, corner_2 = sam.prompt_encoder, _corner_px(sam, corner_cells_xy)
    clicked_PTC = encoder.encode_points(points_PK2 + corner_2, labels_PK, pad=True)
    boxed_PTC = torch.cat(
        [
            encoder.encode_points(points_PK2[:, 1:] + corner_2, labels_PK[:, 1:], pad=False),
            encoder.encode_boxes(batch.boxes_P4 + corner_2.repeat(2)),
        ],
        1,
    )
    return torch.where(batch.is_box_P[:, None, None], boxed_PTC, clicked_PTC)


def decode_window(
    sam: Sam,
    embeddings_BCHW: Tensor,
    image_index_P: Tensor,
    sparse_PTC: Tensor,
    mask_P1LL: Tensor | None,
    *,
    corner_cells_xy: tuple[int, int],
    bf16: bool,
) -> Predictions:
    """Decode the four masks of each prompt from embeddings of windows at `corner_cells_xy` of the input frame."""
    height, width = embeddings_BCHW.shape[-2:]
    left, top = corner_cells_xy
    position_1CHW = sam.prompt_encoder.get_dense_pe()[:, :, top : top + height, left : left + width]
    with _training_arithmetic(embeddings_BCHW.device, bf16):
        if mask_P1LL is None:
            dense = sam.prompt_encoder.no_mask_embed.weight[:, :, None, None]
        else:
            dense = sam.prompt_encoder.mask_downscaling(mask_P1LL)
        logits_P4LL, iou_P4 = sam.mask_decoder(
            embeddings_BCHW, position_1CHW, sparse_PTC, dense, image_index_P=image_index_P
        )
    return Predictions(logits_P4LL=logits_P4LL.float(), predicted_iou_P4=iou_P4.float())


def first_prompt_loss(
    predictions: Predictions, loss_P4: Tensor, iou_P4: Tensor, objective: Objective, batch: Batch
) -> Tensor:
    """Add up the minimum loss of the three masks, the single mask's loss and the IoU head's error, weighted."""
    iou_error_P4 = objective.iou_weight * iou_errors(predictions.predicted_iou_P4, iou_P4, batch.rejected_P)
    best_P = min_loss(loss_P4[:, 1:], mean_fraction=objective.idle_mask_fraction)
    three = (batch.weights_P * best_P).mean() + iou_error_P4[:, 1:].mean()
    single = (batch.weights_P * loss_P4[:, 0]).mean() + iou_error_P4[:, 0].mean()
    return three + objective.single_mask_weight * single


def iou_errors(predicted_PM: Tensor, iou_PM: Tensor, rejected_P: Tensor) -> Tensor:
    """Compute the squared error of the IoU head, float32 [P, M].

    Of a rejected mask it is only known that it is wrong. A prediction should therefore rate itself 0 as far as it
    repeats that mask; what it rates itself where it does not, is left open.
    """
    rated_zero_PM = iou_PM * predicted_PM**2
    return torch.where(rejected_P[:, None], rated_zero_PM, (predicted_PM - iou_PM) ** 2)


def _take(logits_P4LL: Tensor, chosen_P1: Tensor) -> Tensor:
    """Take the chosen mask's logits as the next mask prompt [P, 1, L, L], without clamping or scaling."""
    return logits_P4LL.detach()[torch.arange(len(chosen_P1), device=chosen_P1.device), chosen_P1[:, 0]].unsqueeze(1)


def _some_prompts(batch: Batch, some: slice) -> Batch:
    return replace(
        batch,
        targets_PLL=batch.targets_PLL[some],
        clicks_P2=batch.clicks_P2[some],
        boxes_P4=batch.boxes_P4[some],
        is_box_P=batch.is_box_P[some],
        uniforms_RP3=batch.uniforms_RP3[:, some],
        weights_P=batch.weights_P[some],
        rejected_P=batch.rejected_P[some],
    )


@contextmanager
def _training_arithmetic(device: torch.device, bf16: bool, *, differentiates: bool = True) -> Iterator[None]:
    """Set the arithmetic of a training: products in bfloat16 if `bf16`, and the attention kernel of `attention_on`.

    Where nothing will be differentiated, torch chooses the kernel.
    """
    mixed = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    with mixed, attention_on(device) if differentiates else nullcontext():
        yield


def attention_on(device: torch.device) -> AbstractContextManager[None]:
    """Choose the attention kernel: plain matrix products on a CPU, torch's choice on a GPU.

    On a CPU the backward pass of the flash kernel took a quarter of a step on queries of 7 tokens. Blocks that the
    backward pass recomputes must use the same kernel as in the forward pass.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _corner_px(sam: Sam, corner_cells_xy: tuple[int, int]) -> Tensor:
    corner_xy = [float(cells * sam.config.embedding_stride) for cells in corner_cells_xy]
    # A copy that blocks would wait for all work that a GPU has before it.
    return torch.tensor(corner_xy).to(sam.device, non_blocking=True)
