"""Mask decoder: from image embedding and prompt tokens to masks and their predicted IoU ("Segment Anything", fig. 14).

Every prompt gets four masks: mask 0 is for several points or a box, masks 1 to 3 for one ambiguous point.

Shape suffixes: B images, P prompts, T prompt tokens, M = 4 masks, C channels, H and W rows and columns of the
embedding or of a window of it.
"""

import torch
from torch import Tensor, nn

from engine.model.config import SamConfig
from engine.model.layers import LayerNorm2d, Perceptron, make_embedding
from engine.model.transformer import TwoWayTransformer, spread

NUM_MASKS = 4


class MaskDecoder(nn.Module):
    """Mask decoder: two-way transformer, upscaling, one hypernetwork per mask, and a head that predicts IoU."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        width = config.width
        self.transformer = TwoWayTransformer(
            config.decoder_depth, width, config.decoder_heads, config.decoder_mlp_width
        )
        self.iou_token = make_embedding(1, width)
        self.mask_tokens = make_embedding(NUM_MASKS, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, kernel_size=2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron(width, width, width // 8, depth=3) for _ in range(NUM_MASKS)
        )
        self.iou_prediction_head = Perceptron(width, config.iou_head_width, NUM_MASKS, config.iou_head_depth)

    def forward(
        self,
        image_embeddings_BCHW: Tensor,
        image_pe_1CHW: Tensor,
        sparse_PTC: Tensor,
        dense_PCHW: Tensor,
        *,
        image_index_P: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode all four masks of every prompt: logits [P, 4, 4H, 4W] and predicted IoU [P, 4].

        Args:
            dense_PCHW: encoded mask prompts; [1, C, 1, 1] if there are none.
            image_index_P: int64 index of each prompt's image.
        """
        mask_tokens_PMC, iou_token_PC, image_PCHW = self.attend(
            image_embeddings_BCHW, image_pe_1CHW, sparse_PTC, dense_PCHW, image_index_P=image_index_P
        )
        return self.mask_logits(mask_tokens_PMC, image_PCHW), self.iou_prediction_head(iou_token_PC)

    def attend(
        self,
        image_embeddings_BCHW: Tensor,
        image_pe_1CHW: Tensor,
        sparse_PTC: Tensor,
        dense_PCHW: Tensor,
        *,
        image_index_P: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the transformer without upscaling any mask.

        The caller can apply `iou_prediction_head` to the IoU token, and then upscale only the masks of high predicted
        IoU.

        Returns:
            Mask tokens [P, 4, C], IoU token [P, C] and image [P, C, H, W], all after attention.
        """
        own_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens_PTC = torch.cat([own_tokens.expand(len(sparse_PTC), -1, -1), sparse_PTC], dim=1)

        index_P: Tensor | None = image_index_P
        if len(dense_PCHW) == 1:  # every prompt sees the same image: the first block's image side is shared
            image_UCHW = image_embeddings_BCHW + dense_PCHW
        else:
            image_UCHW, index_P = spread(image_embeddings_BCHW, image_index_P) + dense_PCHW, None
        position_1NC = image_pe_1CHW.flatten(2).transpose(1, 2)
        attended_PTC, attended_PNC = self.transformer(
            image_UCHW.flatten(2).transpose(1, 2), position_1NC, tokens_PTC, index_P
        )
        image_PCHW = attended_PNC.transpose(1, 2).unflatten(2, tuple(image_embeddings_BCHW.shape[-2:]))
        return attended_PTC[:, 1 : 1 + NUM_MASKS], attended_PTC[:, 0], image_PCHW

    def mask_logits(self, mask_tokens_PMC: Tensor, image_PCHW: Tensor) -> Tensor:
        """Compute logits [P, 4, 4H, 4W] from mask tokens [P, 4, C] and image [P, C, H, W], both after attention."""
        upscaled_PcHW = self.output_upscaling(image_PCHW)
        if upscaled_PcHW.requires_grad and upscaled_PcHW.device.type == "cpu":
            upscaled_PcHW.register_hook(_channels_last)  # GELU's backward pass is slow on a gradient of another layout
        weights_PMc = torch.stack(
            [mlp(mask_tokens_PMC[:, index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        return (weights_PMc @ upscaled_PcHW.flatten(2)).unflatten(2, tuple(upscaled_PcHW.shape[-2:]))


def _channels_last(gradient_PcHW: Tensor) -> Tensor:
    return gradient_PcHW.contiguous(memory_format=torch.channels_last)
