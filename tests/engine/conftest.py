"""The peer of the network tests: the SamModel of the transformers package, carrying a network's own weights."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.model.config import VitConfig
from engine.model.sam import Sam

PEER_NAMES = [
    (r"^image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.blocks\.(\d+)\.norm", r"vision_encoder.layers.\1.layer_norm"),
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.", "vision_encoder."),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^mask_decoder\.transformer\.layers\.(\d+)\.norm", r"mask_decoder.transformer.layers.\1.layer_norm"),
    (r"^mask_decoder\.transformer\.norm_final", "mask_decoder.transformer.layer_norm_final"),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"(mlps\.\d+|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d+|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(mlps\.\d+|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
]
"""Official parameter names to those of transformers, applied in order."""

POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
PEER_POSITIONS = ["shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"]


@pytest.fixture(scope="session")
def transformers_peer() -> Callable[[Sam], Any]:
    """A function from a network to the SamModel with the same weights.

    For a network whose image encoder is no ViT the peer has none either: it takes image embeddings.
    """
    return peer_of


def peer_of(sam: Sam) -> Any:
    from transformers import SamConfig as PeerConfig
    from transformers import SamModel

    config, vit = sam.config, sam.config.image_encoder
    has_vit = isinstance(vit, VitConfig)
    vision = {"num_hidden_layers": 0, "global_attn_indexes": []}
    if isinstance(vit, VitConfig):
        vision = {
            "hidden_size": vit.width,
            "num_hidden_layers": vit.depth,
            "num_attention_heads": vit.heads,
            "mlp_ratio": float(vit.mlp_ratio),
            "window_size": vit.window_side,
            "global_attn_indexes": list(vit.global_blocks),
        }
    sizes = {"image_size": config.input_side, "patch_size": config.embedding_stride}
    peer = SamModel(
        PeerConfig(
            vision_config=vision | sizes | {"output_channels": config.width, "num_pos_feats": config.width // 2},
            prompt_encoder_config=sizes
            | {"hidden_size": config.width, "mask_input_channels": config.mask_prompt_channels},
            mask_decoder_config={
                "hidden_size": config.width,
                "mlp_dim": config.decoder_mlp_width,
                "num_hidden_layers": config.decoder_depth,
                "num_attention_heads": config.decoder_heads,
                "iou_head_depth": config.iou_head_depth,
                "iou_head_hidden_dim": config.iou_head_width,
                "layer_norm_eps": 1e-5,  # the original's; transformers says 1e-6 unless told
            },
        )
    )
    state = {peer_name(name): value for name, value in sam.state_dict().items() if has_vit or "image_enc" not in name}
    positions = state.pop(POSITIONS)
    missing, unexpected = peer.load_state_dict(state | dict.fromkeys(PEER_POSITIONS, positions), strict=False)
    assert not unexpected
    assert not [name for name in missing if has_vit or not name.startswith("vision_encoder.")]
    return peer.eval()


def peer_name(name: str) -> str:
    for official, peers in PEER_NAMES:
        name = re.sub(official, peers, name)
    return name


@pytest.fixture(scope="session")
def randomise() -> Callable[[Sam, int], Sam]:
    """A function that moves every weight off its initial value, so that a part left out would show."""

    def move(sam: Sam, seed: int) -> Sam:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in sam.named_parameters():
                scale = 0.3 if "rel_pos" in name or "pos_embed" in name else 0.1 if weight.ndim == 1 else 0.0
                if weight.ndim > 1 and "mask_decoder" in name:
                    weight.mul_(2)  # fresh linear layers hardly let prompts and masks through
                weight.add_(scale * torch.randn(weight.shape, generator=generator))
        return sam

    return move
