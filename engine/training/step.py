"""One training step's forward pass: encode a window, answer the first prompts, then correct the answers by clicks.

"Segment Anything", section 3 and appendix A, on windows: positions in SAM are shares of the input side, so a window
that lies at some place of the input frame sees the dense positions of that place and its points are moved there.

B pictures, P prompts, C channels, H W cells of the window's embedding, L logit cells, R correction rounds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.model.sam import Sam
from engine.training.data import LOGIT_STRIDE, Batch
from engine.training.losses import least_loss, score_masks
from engine.training.simulation import correction_clicks

IDLE_ANSWER_SHARE = 0.05
"""Share of the mean loss of the three answers that is added to the least, so that none dies."""
IOU_WEIGHT = 4.0
"""Of the IoU head's squared error. The paper's 1 leaves it 2 % of the loss, and the ranking of answers lags behind."""
SINGLE_ANSWER_WEIGHT = 0.25
"""Weight of the single-mask token on a first prompt, where three answers compete for ambiguity; 1 on corrections."""


@dataclass(frozen=True, kw_only=True)
class StepScores:
    """How a batch went; scalars without gradient, in this order in the history."""

    loss: Tensor
    best_iou: Tensor
    """Mean IoU of the best of three answers to the first prompt."""
    chosen_iou: Tensor
    """Mean IoU of the answer that the IoU head ranks first."""
    iou_error: Tensor
    """Mean absolute error of the predicted IoU of the three answers."""
    corrected_iou: Tensor
    """Mean IoU after the last correction of this step; that of the chosen answer when there was none."""

    def stacked(self) -> Tensor:
        """float32 [5]."""
        return torch.stack([self.loss, self.best_iou, self.chosen_iou, self.iou_error, self.corrected_iou]).float()


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the decoder says to each prompt: answer 0 is the single mask, 1 to 3 are whole, part and sub-part."""

    logits_P4LL: Tensor
    predicted_iou_P4: Tensor


def forward_step(
    sam: Sam, batch: Batch, *, corner_cells_xy: tuple[int, int], corrections: int, bf16: bool
) -> tuple[Tensor, StepScores]:
    """Loss (a scalar with gradient) and scores of a batch whose windows lie at `corner_cells_xy` of the input frame."""
    with _training_arithmetic(bf16):
        embeddings_BCHW = sam.image_encoder(batch.pixels_B3SS)
    prompts = len(batch.clicks_P2)
    image_index_P = torch.arange(len(embeddings_BCHW)).repeat_interleave(prompts // len(embeddings_BCHW))

    def answer(points_PK2: Tensor, labels_PK: Tensor, mask_P1LL: Tensor | None) -> Answers:
        sparse_PTC = encode_prompts(sam, batch, points_PK2, labels_PK, corner_cells_xy)
        return decode_window(
            sam, embeddings_BCHW, image_index_P, sparse_PTC, mask_P1LL, corner_cells_xy=corner_cells_xy, bf16=bf16
        )

    points_PK2, labels_PK = batch.clicks_P2[:, None], torch.ones(prompts, 1, dtype=torch.int64)
    answers = answer(points_PK2, labels_PK, None)
    scores = score_masks(answers.logits_P4LL, batch.targets_PLL)
    loss = first_prompt_loss(answers, scores.loss_PM, scores.iou_PM)
    chosen_P1 = answers.predicted_iou_P4[:, 1:].argmax(1, keepdim=True) + 1
    chosen_iou = scores.iou_PM.gather(1, chosen_P1).mean()
    corrected_iou = chosen_iou
    previous_P1LL = _take(answers.logits_P4LL, chosen_P1)
    if corrections:
        # Every second prompt: a correction cannot share the decoder's image side and costs more than a first answer.
        batch, image_index_P = _every_second(batch), image_index_P[::2]
        points_PK2, labels_PK, previous_P1LL = points_PK2[::2], labels_PK[::2], previous_P1LL[::2]
    for correction in range(corrections):
        clicks_P2, click_labels_P = correction_clicks(
            previous_P1LL[:, 0], batch.targets_PLL, batch.uniforms_RP3[correction], LOGIT_STRIDE
        )
        points_PK2 = torch.cat([points_PK2, clicks_P2[:, None]], 1)
        labels_PK = torch.cat([labels_PK, click_labels_P[:, None]], 1)
        corrected = answer(points_PK2, labels_PK, previous_P1LL)
        single = score_masks(corrected.logits_P4LL[:, :1], batch.targets_PLL)
        iou_loss = F.mse_loss(corrected.predicted_iou_P4[:, :1], single.iou_PM)
        loss = loss + single.loss_PM.mean() + IOU_WEIGHT * iou_loss
        corrected_iou = single.iou_PM.mean()
        previous_P1LL = corrected.logits_P4LL[:, :1].detach()
    loss = loss / (1 + 0.5 * corrections)
    return loss, StepScores(
        loss=loss.detach(),
        best_iou=scores.iou_PM[:, 1:].amax(1).mean(),
        chosen_iou=chosen_iou,
        iou_error=(answers.predicted_iou_P4[:, 1:].detach() - scores.iou_PM[:, 1:]).abs().mean(),
        corrected_iou=corrected_iou,
    )


def encode_prompts(
    sam: Sam, batch: Batch, points_PK2: Tensor, labels_PK: Tensor, corner_cells_xy: tuple[int, int]
) -> Tensor:
    """Prompt tokens [P, K + 1, C]: K clicks and padding, or, where the first prompt is a box, K - 1 clicks and the box.

    In float32: bfloat16 cannot tell apart the phases of neighbouring pixels.
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
) -> Answers:
    """All four answers to each prompt on embeddings of windows that lie at `corner_cells_xy` of the input frame."""
    height, width = embeddings_BCHW.shape[-2:]
    left, top = corner_cells_xy
    position_1CHW = sam.prompt_encoder.get_dense_pe()[:, :, top : top + height, left : left + width]
    with _training_arithmetic(bf16):
        if mask_P1LL is None:
            dense = sam.prompt_encoder.no_mask_embed.weight[:, :, None, None]
        else:
            dense = sam.prompt_encoder.mask_downscaling(mask_P1LL)
        logits_P4LL, iou_P4 = sam.mask_decoder(
            embeddings_BCHW, position_1CHW, sparse_PTC, dense, image_index_P=image_index_P
        )
    return Answers(logits_P4LL=logits_P4LL.float(), predicted_iou_P4=iou_P4.float())


def first_prompt_loss(answers: Answers, loss_P4: Tensor, iou_P4: Tensor) -> Tensor:
    """Minimum over the three answers, the single answer beside it, and the IoU head's squared error."""
    iou_error_P4 = IOU_WEIGHT * (answers.predicted_iou_P4 - iou_P4) ** 2
    three = least_loss(loss_P4[:, 1:], mean_share=IDLE_ANSWER_SHARE).mean() + iou_error_P4[:, 1:].mean()
    single = loss_P4[:, 0].mean() + iou_error_P4[:, 0].mean()
    return three + SINGLE_ANSWER_WEIGHT * single


def _take(logits_P4LL: Tensor, chosen_P1: Tensor) -> Tensor:
    """The chosen answer's logits as the next mask prompt [P, 1, L, L], as they are: neither clamped nor scaled."""
    return logits_P4LL.detach()[torch.arange(len(chosen_P1)), chosen_P1[:, 0]].unsqueeze(1)


def _every_second(batch: Batch) -> Batch:
    return replace(
        batch,
        targets_PLL=batch.targets_PLL[::2],
        clicks_P2=batch.clicks_P2[::2],
        boxes_P4=batch.boxes_P4[::2],
        is_box_P=batch.is_box_P[::2],
        uniforms_RP3=batch.uniforms_RP3[:, ::2],
    )


@contextmanager
def _training_arithmetic(bf16: bool) -> Iterator[None]:
    """bfloat16 products where asked for, and attention written out: on a CPU the flash kernel's backward pass took a
    quarter of a step on queries of 7 tokens.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), sdpa_kernel(SDPBackend.MATH):
        yield


def _corner_px(sam: Sam, corner_cells_xy: tuple[int, int]) -> Tensor:
    return torch.tensor(corner_cells_xy, dtype=torch.float32) * sam.config.embedding_stride
