"""The whole SAM network: preprocess, encode and decode, three functions without hidden state.

Shape suffixes: B images, P prompts, C channels, S side of the input, E side of the embedding, M masks per prompt,
L = 4 E side of a low-resolution mask.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.images import Frame, resize
from engine.model.config import SamConfig, TinyVitConfig, VitConfig
from engine.model.hybrid_encoder import HybridEncoder
from engine.model.image_encoder import ImageEncoder
from engine.model.mask_decoder import MaskDecoder
from engine.model.prompt_encoder import PromptEncoder
from engine.model.tiny_vit import TinyVit
from engine.prompts import Prompts

Outputs = Literal["multimask", "single", "all"]

MASKS_BY_OUTPUTS: dict[str, slice] = {"multimask": slice(1, 4), "single": slice(0, 1), "all": slice(0, 4)}
"""Slice of the decoder's four masks that `Sam.decode` returns, by its argument `outputs`."""
PIXEL_MEAN = (123.675, 116.28, 103.53)
"""Means of R, G and B, for values in [0, 255], by which pixels are normalised; the same for every SAM."""
PIXEL_STD = (58.395, 57.12, 57.375)
"""Standard deviations of R, G and B, for values in [0, 255], by which pixels are normalised."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Masks that the decoder predicts for P prompts."""

    logits_PMLL: Tensor
    """Low-resolution mask logits; above 0 inside the mask."""
    iou_PM: Tensor
    """Predicted IoU of each mask with the prompted object."""


class Sam(nn.Module):
    """SAM network of image encoder, prompt encoder and mask decoder, with the original release's parameter names."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder: nn.Module
        if isinstance(config.image_encoder, VitConfig):
            self.image_encoder = ImageEncoder(config, config.image_encoder)
        elif isinstance(config.image_encoder, TinyVitConfig):
            self.image_encoder = TinyVit(config.image_encoder, config.width)
        else:
            self.image_encoder = HybridEncoder(config.image_encoder, config.width)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    @property
    def device(self) -> torch.device:
        """Device of the weights, to which `preprocess` moves pixels."""
        return self.mask_decoder.iou_token.weight.device

    def preprocess(self, image_HW3: np.ndarray) -> Tensor:
        """Resize and normalise a uint8 RGB image, and pad it with zeros below or right; return float32 [3, S, S].

        Raises:
            ValueError: The image is not uint8 [H, W, 3].
        """
        side = self.config.input_side
        frame = Frame.whole((image_HW3.shape[0], image_HW3.shape[1]), side)
        resized_HW3 = resize(image_HW3, frame.scaled_hw)
        mean_3, std_3 = torch.tensor(PIXEL_MEAN, device=self.device), torch.tensor(PIXEL_STD, device=self.device)
        pixels_HW3 = torch.tensor(resized_HW3, device=self.device)
        normalised_3HW = ((pixels_HW3 - mean_3) / std_3).permute(2, 0, 1)
        height, width = frame.scaled_hw
        return F.pad(normalised_3HW, (0, side - width, 0, side - height))

    def encode(self, pixels_B3SS: Tensor) -> Tensor:
        """Encode preprocessed images as embeddings [B, C, E, E]."""
        return self.image_encoder(pixels_B3SS)

    def decode(
        self,
        embeddings_BCEE: Tensor,
        prompts: Prompts,
        *,
        outputs: Outputs = "multimask",
        image_index_P: Tensor | None = None,
    ) -> Decoded:
        """Predict M masks for every prompt; M is 3 for "multimask", 1 for "single" and 4 for "all".

        Args:
            image_index_P: int64 index into `embeddings_BCEE` for each prompt; None if there is only one embedding.

        Raises:
            ValueError: Embeddings or mask prompts do not fit the network, or several embeddings come without
                `image_index_P`.
        """
        # Check the shapes
        side = self.config.embedding_side
        if tuple(embeddings_BCEE.shape[1:]) != (self.config.width, side, side):
            raise ValueError(
                f"got embeddings {list(embeddings_BCEE.shape)}, expected [B, {self.config.width}, {side}, {side}]"
            )
        masks_P1LL, mask_side = prompts.mask_logits_P1LL, self.config.logits_side
        if masks_P1LL is not None and tuple(masks_P1LL.shape[2:]) != (mask_side, mask_side):
            raise ValueError(f"got mask prompts {list(masks_P1LL.shape)}, expected [P, 1, {mask_side}, {mask_side}]")
        if image_index_P is None:
            if len(embeddings_BCEE) != 1:
                raise ValueError(f"got {len(embeddings_BCEE)} embeddings; image_index_P must name each prompt's")
            image_index_P = torch.zeros(len(prompts), dtype=torch.int64, device=embeddings_BCEE.device)

        # Encode the prompts and decode them
        sparse_PTC, dense_PCHW = self.prompt_encoder(prompts)
        logits_P4LL, iou_P4 = self.mask_decoder(
            embeddings_BCEE, self.prompt_encoder.get_dense_pe(), sparse_PTC, dense_PCHW, image_index_P=image_index_P
        )
        wanted = MASKS_BY_OUTPUTS[outputs]
        return Decoded(logits_PMLL=logits_P4LL[:, wanted], iou_PM=iou_P4[:, wanted])


def build_sam(config: SamConfig) -> Sam:
    """Build a network of the sizes in `config` with random weights, in evaluation mode."""
    return Sam(config).eval()
