"""Initial weights of a network whose attention finds the click from the first step.

The same Fourier code (sines and cosines of a position) places clicks and image cells. Equal query and key projections
give products that peak where two codes agree, so that tokens look at the clicked cell at once. A network without this
spends the first hundred steps on learning it. Structure and names remain those of SAM.
"""

import torch
from torch import nn

from engine.model.config import SamConfig
from engine.model.sam import Sam
from engine.model.transformer import Attention, TwoWayBlock

QUERY_GAIN = 2.2
"""Factor on the equal query and key projections, sharp enough to prefer the clicked cell among some hundred (measured).
"""
PROMPT_STD = 0.1
"""Standard deviation of the initial prompt embeddings, small so that the Fourier code of the position dominates."""
TOKEN_STD = 0.5


def fresh_sam(config: SamConfig, seed: int) -> Sam:
    """Make a network with weights drawn from `seed`, attention that finds the click, and channels-last convolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam = Sam(config)
        _tie_cross_attention(sam)
        _shrink_embeddings(sam)
    sam.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return sam


@torch.no_grad()
def _tie_cross_attention(sam: Sam) -> None:
    transformer = sam.mask_decoder.transformer
    attentions: list[Attention] = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        assert isinstance(layer, TwoWayBlock)
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        attention.q_proj.weight.mul_(QUERY_GAIN)
        attention.k_proj.weight.copy_(attention.q_proj.weight)


def _shrink_embeddings(sam: Sam) -> None:
    encoder, decoder = sam.prompt_encoder, sam.mask_decoder
    for embedding in (*encoder.point_embeddings, encoder.not_a_point_embed, encoder.no_mask_embed):
        assert isinstance(embedding, nn.Embedding)
        nn.init.normal_(embedding.weight, std=PROMPT_STD)
    for embedding in (decoder.iou_token, decoder.mask_tokens):
        nn.init.normal_(embedding.weight, std=TOKEN_STD)
