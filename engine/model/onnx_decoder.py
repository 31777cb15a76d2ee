"""Export of a network's decoder to ONNX, for programs that run it without torch, such as the annotation page.

The exported function decodes one prompt on one embedding. It takes what `Sam.decode` takes, with three differences that
make it one graph for prompts of every kind: points and box corners come as one list of tokens, a mask prompt comes with
a flag that says whether it counts, and the embedding is fp16, as it is stored and sent. It returns all four masks; the
caller picks those of `MASKS_BY_OUTPUTS`.

Shape suffixes: T tokens, C/E width and side of the embedding, L = 4 E side of the low-resolution logits.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.model.sam import Sam

VERSION = 1
"""Number of the exported function's form, whole; it is raised whenever inputs, outputs or the graph change."""
INPUTS = ("embedding", "points", "labels", "mask", "has_mask")
"""Names of the graph's inputs, in the order of `OnnxDecoder.forward`."""
OUTPUTS = ("logits", "kept_logits", "iou")
"""Names of the graph's outputs, in the order of `OnnxDecoder.forward`."""
PADDING, BACKGROUND, FOREGROUND, FIRST_CORNER, SECOND_CORNER = -1, 0, 1, 2, 3
"""Labels of tokens. A prompt with clicks and without a box ends with a padding token at (0, 0)."""
_OPSET = 17


def export_decoder(sam: Sam) -> bytes:
    """Export the decoder of a network on the CPU as an ONNX model.

    The exporter is torch's older one, which needs `onnx` alone; the newer one takes a further library and ten times as
    long.

    Raises:
        RuntimeError: The library `onnx` is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise RuntimeError("the decoder cannot be exported: onnx is not installed; run `pip install onnx`")
    config = sam.config
    example = (
        torch.zeros(1, config.width, config.embedding_side, config.embedding_side, dtype=torch.float16),
        torch.zeros(1, 3, 2),
        torch.tensor([[FOREGROUND, FIRST_CORNER, SECOND_CORNER]]),
        torch.zeros(1, 1, config.logits_side, config.logits_side),
        torch.ones(1),
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        path = Path(folder) / "decoder.onnx"
        warnings.simplefilter("ignore")  # of tracing, about shapes that are the same for every prompt
        torch.onnx.export(
            OnnxDecoder(sam).eval(),
            example,
            path,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={"points": {1: "tokens"}, "labels": {1: "tokens"}},
            opset_version=_OPSET,
            dynamo=False,
        )
        return path.read_bytes()


class OnnxDecoder(nn.Module):
    """The exported function. Points are in model-input pixels."""

    position_1CEE: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = sam.prompt_encoder, sam.mask_decoder
        self.register_buffer("position_1CEE", sam.prompt_encoder.get_dense_pe().detach(), persistent=False)

    def forward(
        self, embedding_1CEE: Tensor, points_1T2: Tensor, labels_1T: Tensor, mask_11LL: Tensor, has_mask_1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode one prompt: logits [1, 4, L, L], the same rounded to fp16 for the next prompt, predicted IoU [1, 4].

        Args:
            embedding_1CEE: fp16.
            points_1T2: clicks, then the padding or both corners of the box.
            labels_1T: int64 kinds of the tokens, from `PADDING` to `SECOND_CORNER`.
            mask_11LL: logits of an earlier prediction; its values do not matter where `has_mask_1` is 0.
            has_mask_1: 1 where the prompt has a mask, else 0; float32.
        """
        # Encode the prompt
        encoder = self.prompt_encoder
        positions_1TC = encoder.pe_layer((points_1T2 + 0.5) / encoder.input_side)
        positions_1TC = positions_1TC.masked_fill((labels_1T == PADDING)[..., None], 0.0)
        kinds_5C = torch.cat([encoder.not_a_point_embed.weight, *encoder.point_embeddings.parameters()])
        sparse_1TC = positions_1TC + kinds_5C[labels_1T + 1]
        masked_1CEE = encoder.mask_downscaling(mask_11LL)
        dense_1CEE = has_mask_1 * masked_1CEE + (1 - has_mask_1) * encoder.no_mask_embed.weight[:, :, None, None]

        # Decode it
        index_1 = torch.zeros(1, dtype=torch.int64)
        logits_14LL, iou_14 = self.mask_decoder(
            embedding_1CEE.float(), self.position_1CEE, sparse_1TC, dense_1CEE, image_index_P=index_1
        )
        return logits_14LL, logits_14LL.half().float(), iou_14
