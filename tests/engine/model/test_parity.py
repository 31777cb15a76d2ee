"""The network computes what the SamModel of transformers computes with the same weights, in fp32.

Differences are relative to the standard deviation of the peer's values; the bar is 1e-4.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.model.config import VIT_B, HybridConfig, SamConfig, VitConfig
from engine.model.sam import Sam, build_sam
from engine.prompts import Prompts

TOLERANCE = 1e-4
SMALL_VIT = SamConfig(
    image_encoder=VitConfig(width=96, depth=4, heads=3, global_blocks=(1, 3)),
    input_side=320,
    width=64,
    decoder_mlp_width=256,
)
SEED_SHAPES = [
    SamConfig(image_encoder=HybridConfig(), input_side=320, embedding_stride=8, width=128, decoder_heads=heads)
    for heads in (4, 8)
]
COUNT = 5
KINDS = ["point", "points", "box", "points and box", "mask", "points and mask", "points, box and mask"]


def difference(ours: Tensor, peers: Tensor) -> float:
    assert ours.shape == peers.shape
    return float((ours - peers).abs().max() / peers.std())


def make_prompts(kind: str, config: SamConfig) -> Prompts:
    generator = torch.Generator().manual_seed(7)
    points = torch.rand(COUNT, 4, 2, generator=generator) * config.input_side
    labels = torch.tensor([[1, 0, 1, -1]]).repeat(COUNT, 1)
    corners = torch.rand(COUNT, 2, 2, generator=generator) * config.input_side
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    masks = 4 * torch.randn(COUNT, 1, config.logits_side, config.logits_side, generator=generator)
    num_points = 1 if kind == "point" else 4 if "points" in kind else 0
    return Prompts(
        points_PK2=points[:, :num_points],
        labels_PK=labels[:, :num_points],
        boxes_P4=boxes if "box" in kind else None,
        mask_logits_P1LL=masks if "mask" in kind else None,
    )


def peer_decode(peer: Any, embeddings: Tensor, prompts: Prompts, multimask: bool) -> tuple[Tensor, Tensor]:
    """The peer's logits [P, M, L, L] and IoU [P, M]; each prompt is an image of its own, as its mask prompts need."""
    has_points = prompts.points_PK2.shape[1] > 0
    with torch.no_grad():
        answer = peer(
            image_embeddings=embeddings.expand(len(prompts), -1, -1, -1),
            input_points=prompts.points_PK2[:, None] if has_points else None,
            input_labels=prompts.labels_PK[:, None] if has_points else None,
            input_boxes=None if prompts.boxes_P4 is None else prompts.boxes_P4[:, None],
            input_masks=prompts.mask_logits_P1LL,
            multimask_output=multimask,
        )
    return answer.pred_masks[:, 0], answer.iou_scores[:, 0]


@pytest.fixture(scope="module")
def small_vit(transformers_peer: Callable[[Sam], Any], randomise: Callable[[Sam, int], Sam]) -> tuple[Sam, Any]:
    torch.manual_seed(0)
    sam = randomise(build_sam(SMALL_VIT), 1)
    return sam, transformers_peer(sam)


@pytest.fixture(scope="module", params=SEED_SHAPES, ids=["4 heads", "8 heads"])
def seed_shape(
    request: pytest.FixtureRequest, transformers_peer: Callable[[Sam], Any], randomise: Callable[[Sam, int], Sam]
) -> tuple[Sam, Any]:
    torch.manual_seed(0)
    sam = randomise(build_sam(request.param), 2)
    return sam, transformers_peer(sam)


def random_embeddings(config: SamConfig, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, config.width, config.embedding_side, config.embedding_side, generator=generator)


def check_decoder(sam: Sam, peer: Any, kind: str, multimask: bool) -> None:
    embeddings, prompts = random_embeddings(sam.config), make_prompts(kind, sam.config)
    with torch.no_grad():
        ours = sam.decode(embeddings, prompts, outputs="multimask" if multimask else "single")
    logits, iou = peer_decode(peer, embeddings, prompts, multimask)
    assert difference(ours.logits_PMLL, logits) < TOLERANCE
    assert difference(ours.iou_PM, iou) < TOLERANCE


def test_image_embeddings_are_the_peers(small_vit: tuple[Sam, Any]) -> None:
    sam, peer = small_vit
    pixels = torch.randn(2, 3, 320, 320, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert difference(sam.encode(pixels), peer.get_image_embeddings(pixels)) < TOLERANCE


@pytest.mark.parametrize("axis", ["rel_pos_h", "rel_pos_w"])
@pytest.mark.parametrize("block", [0, 1], ids=["window", "global"])
def test_parity_would_notice_a_lost_table_of_relative_positions(
    small_vit: tuple[Sam, Any], block: int, axis: str
) -> None:
    sam, peer = small_vit
    pixels = torch.randn(1, 3, 320, 320, generator=torch.Generator().manual_seed(4))
    table = getattr(sam.image_encoder.blocks[block].attn, axis)
    kept = table.detach().clone()
    with torch.no_grad():
        table.zero_()
        apart = difference(sam.encode(pixels), peer.get_image_embeddings(pixels))
        table.copy_(kept)
    assert apart > 100 * TOLERANCE


@pytest.mark.parametrize("multimask", [True, False], ids=["multimask", "single"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_iou_are_the_peers(small_vit: tuple[Sam, Any], kind: str, multimask: bool) -> None:
    check_decoder(*small_vit, kind, multimask)


@pytest.mark.parametrize("multimask", [True, False], ids=["multimask", "single"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_iou_of_the_seeds_decoder_are_the_peers(
    seed_shape: tuple[Sam, Any], kind: str, multimask: bool
) -> None:
    check_decoder(*seed_shape, kind, multimask)


def test_prompts_on_several_images_are_answered_as_by_the_peer(small_vit: tuple[Sam, Any]) -> None:
    sam, peer = small_vit
    embeddings, prompts = random_embeddings(SMALL_VIT, count=2), make_prompts("points", SMALL_VIT)
    image_index = torch.tensor([1, 0, 0, 1, 1])
    with torch.no_grad():
        ours = sam.decode(embeddings, prompts, image_index_P=image_index)
    logits, iou = peer_decode(peer, embeddings[image_index], prompts, multimask=True)
    assert difference(ours.logits_PMLL, logits) < TOLERANCE
    assert difference(ours.iou_PM, iou) < TOLERANCE


@pytest.mark.slow
def test_vit_b_from_pixels_to_masks_is_the_peers_on_a_quarter_of_its_input(
    transformers_peer: Callable[[Sam], Any], randomise: Callable[[Sam, int], Sam]
) -> None:
    config = SamConfig(image_encoder=VIT_B.image_encoder, input_side=512)
    torch.manual_seed(0)
    sam = randomise(build_sam(config), 5)
    peer = transformers_peer(sam)
    pixels = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(6))
    prompts = make_prompts("point", config)
    with torch.no_grad():
        embeddings = sam.encode(pixels)
        ours = sam.decode(embeddings, prompts)
        peers_embeddings = peer.get_image_embeddings(pixels)
    logits, iou = peer_decode(peer, peers_embeddings, prompts, multimask=True)
    assert difference(embeddings, peers_embeddings) < TOLERANCE
    assert difference(ours.logits_PMLL, logits) < TOLERANCE
    assert difference(ours.iou_PM, iou) < TOLERANCE
