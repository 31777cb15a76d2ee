"""ViT-B with random weights whose masks differ from point to point, for benchmarks without the released weights.

Unmodified random weights give every point the same noise. These are arranged, but not trained:
- positions vary smoothly over the image, and the upscaling treats all pixels of a cell alike: masks have shapes;
- tokens attend to the image with one matrix for queries and keys, scaled up: a point looks at its surroundings;
- what attention and hypernetworks pass on is scaled up, logits tenfold: points differ, and masks have edges;
- the three masks of a point share their predicted IoU, which lies around 1: a threshold chooses points, not one kind of
  mask, and is above 0, where thresholds keep everything.
Time and memory of a network do not depend on its weights; those of post-processing depend on the masks.
"""

import torch
import torch.nn.functional as F

from engine.model.card import released_card
from engine.model.config import VIT_B, SamConfig, VitConfig
from engine.model.sam import build_sam
from engine.model.weights import Model

NAME = "random-vit_b"


def random_vit_b() -> Model:
    """Make a ViT-B; the weights are the same at every call."""
    return random_vit(NAME, VIT_B)


@torch.no_grad()
def random_vit(name: str, config: SamConfig) -> Model:
    """Make a network of the original release's kind; the weights are the same at every call."""
    torch.manual_seed(0)
    sam = build_sam(config)
    assert isinstance(config.image_encoder, VitConfig)
    coarse = torch.randn(1, config.image_encoder.width, 5, 5)
    positions = F.interpolate(coarse, (config.embedding_side, config.embedding_side), mode="bicubic")
    sam.image_encoder.pos_embed.copy_(positions.permute(0, 2, 3, 1))

    decoder = sam.mask_decoder
    for index in (0, 3):
        weight = decoder.output_upscaling[index].weight
        weight.copy_(4 * weight.mean((2, 3), keepdim=True).expand_as(weight))
    for block in decoder.transformer.layers:
        _pass_on_more(block.self_attn)
        _look_closer(block.cross_attn_token_to_image)
    _look_closer(decoder.transformer.final_attn_token_to_image)
    for head in [*decoder.output_hypernetworks_mlps, decoder.iou_prediction_head]:
        for layer in head.layers:
            layer.weight *= 2
    for head in decoder.output_hypernetworks_mlps:
        head.layers[-1].weight *= 10
        head.layers[-1].bias *= 10
    last = decoder.iou_prediction_head.layers[-1]
    last.weight.copy_(last.weight[:1].expand_as(last.weight) / 4)
    last.bias.fill_(1.0)
    return Model(name=name, model_id=f"{name}-0", sam=sam, card=released_card(name, config))


def _look_closer(attention: torch.nn.Module) -> None:
    attention.k_proj.weight.copy_(attention.q_proj.weight)
    attention.q_proj.weight *= 6
    attention.k_proj.weight *= 6
    _pass_on_more(attention)


def _pass_on_more(attention: torch.nn.Module) -> None:
    attention.v_proj.weight *= 2
    attention.out_proj.weight *= 2
