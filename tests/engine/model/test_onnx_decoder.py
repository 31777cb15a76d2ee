"""The exported decoder, run by ONNX's own reference, against the network that it was exported from."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from engine.model import onnx_decoder
from engine.model.onnx_decoder import FIRST_CORNER, PADDING, SECOND_CORNER, export_decoder
from engine.model.sam import Sam, build_sam
from engine.prompts import Prompts
from tests.tiny_network import TINY

Decode = Callable[..., list[np.ndarray]]
SIDE = TINY.logits_side
POINTS = [[20.0, 11.5], [3.25, 60.0], [63.0, 0.5]]


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(3)
    return build_sam(TINY)


@pytest.fixture(scope="module")
def decode(sam: Sam) -> Decode:
    """The exported graph as a function of its inputs."""
    reference = ReferenceEvaluator(export_decoder(sam))

    def run(*inputs: torch.Tensor) -> list[np.ndarray]:
        named = dict(zip(onnx_decoder.INPUTS, [each.numpy() for each in inputs], strict=True))
        return list(reference.run(list(onnx_decoder.OUTPUTS), named))

    return run


def embedding() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(1, TINY.width, TINY.embedding_side, TINY.embedding_side, generator=generator).half()


@pytest.mark.parametrize(("clicks", "has_box"), [(1, False), (3, False), (0, True), (1, True), (3, True)])
@pytest.mark.parametrize("has_mask", [False, True])
def test_the_exported_decoder_gives_the_logits_of_the_network(
    sam: Sam, decode: Decode, clicks: int, has_box: bool, has_mask: bool
) -> None:
    points = torch.tensor(POINTS[:clicks]).reshape(1, -1, 2)
    labels = torch.tensor([[1, 0, 1][:clicks]], dtype=torch.int64)
    box = torch.tensor([[4.0, 8.0, 50.0, 61.5]]) if has_box else None
    mask = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7)) if has_mask else None
    prompts = Prompts(points_PK2=points, labels_PK=labels, boxes_P4=box, mask_logits_P1LL=mask)
    with torch.inference_mode():
        expected = sam.decode(embedding().float(), prompts, outputs="all")

    if box is None:
        more, kinds = torch.zeros(1, 1, 2), torch.tensor([[PADDING]])
    else:
        more, kinds = box.reshape(1, 2, 2), torch.tensor([[FIRST_CORNER, SECOND_CORNER]])
    unused = torch.full((1, 1, SIDE, SIDE), 9.0)
    logits, kept, iou = decode(
        embedding(),
        torch.cat([points, more], dim=1),
        torch.cat([labels, kinds], dim=1),
        unused if mask is None else mask,
        torch.tensor([float(has_mask)]),
    )
    assert np.abs(logits - expected.logits_PMLL.numpy()).max() < 1e-4
    assert np.abs(iou - expected.iou_PM.numpy()).max() < 1e-5
    assert np.array_equal(kept, logits.astype(np.float16).astype(np.float32))


def test_exporting_again_gives_the_same_bytes(sam: Sam) -> None:
    assert export_decoder(sam) == export_decoder(sam)
