"""Compiles every Triton kernel for NVIDIA GPUs, which needs none, and prints their names; run by test_triton.py.

The decoder's are compiled as they are launched at real sizes, and must fit the shared memory that is asked of a GPU.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine.kernels import decoder_attention_triton, nms_triton, upsample_runs_triton

POINTERS = {
    "*fp32": ["logits", "row_weights", "column_weights", "bias", "norm_weight", "norm_bias"],
    "*fp64": ["boxes", "limit"],
    "*i32": ["low_rows", "low_columns", "words", "box", "changes"],
    "*i64": ["pixels", "places", "bounds"],
    "fp32": ["offset", "margin", "epsilon"],
}
TYPES = {name: kind for kind, names in POINTERS.items() for name in names}
IN_IMAGES_DTYPE = ["moved", "image", "position", "found", "keys", "values", "written"]
CAPABILITIES = (80, 90)
"""A100; H100 and H200. The RTX 30 and 40 series run the first's instructions."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant of a kernel's launch."""

    constants: dict[str, Any] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    """Values of the arguments that differ from variant to variant."""
    launch: dict[str, int] = field(default_factory=dict)
    is_aligned: bool = False
    """True for sizes and addresses that are multiples of 16, which Triton detects at a launch."""
    shared_bytes: int = 48 * 1024
    """Shared memory the kernel may need; every GPU has as much."""


def decoder_variants() -> list[tuple[Any, list[Variant]]]:
    """SAM's ViTs in both dtypes, the seed in bfloat16; 7 tokens padded to 8."""
    module = decoder_attention_triton
    to_cells: list[Any] = []
    to_tokens: list[Any] = []
    for dtype, kind, channels, heads in (
        (torch.bfloat16, "*bf16", 256, 8),
        (torch.float32, "*fp32", 256, 8),
        (torch.bfloat16, "*bf16", 128, 4),
    ):
        types = dict.fromkeys(IN_IMAGES_DTYPE, kind)
        shape = {"CHANNELS": channels, "BLOCK": channels, "INTERPRETED": False}
        rows = {"ROWS": heads * 8}
        groups = {"HEADS": heads, "TOKENS": 8, "CELLS_OF_PROGRAM": module.CELLS_OF_PROGRAM}
        for variants, launch, more in (
            (to_cells, module.TO_CELLS[dtype], rows),
            (to_tokens, module.TO_TOKENS[dtype], groups),
        ):
            constants = shape | more | {"CELLS": launch.cells}
            options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
            shared_bytes = module.SHARED_BYTES[dtype]
            variants.append(
                Variant(constants=constants, types=types, launch=options, is_aligned=True, shared_bytes=shared_bytes)
            )
    return [(module.to_cells_kernel, to_cells), (module.to_tokens_kernel, to_tokens)]


WALKS = [
    Variant(constants={"FULL_HEIGHT": full, "ENDS_IMAGE": ends, "COLUMNS": 128})
    for full in (False, True)
    for ends in (False, True)
]
KERNELS: list[tuple[Any, list[Variant]]] = [
    (upsample_runs_triton.evaluate_kernel, [Variant(constants={"COLUMNS": 64, "EMULATE_FMA": False})]),
    (upsample_runs_triton.count_kernel, WALKS),
    (upsample_runs_triton.write_kernel, WALKS),
    (nms_triton.pairs_kernel, [Variant()]),
    *decoder_variants(),
]


def compile_variant(kernel: Any, variant: Variant, capability: int) -> Any:
    types = TYPES | variant.types | dict.fromkeys(variant.constants, "constexpr")
    kinds = {name: types.get(name, "i32") for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in variant.constants.items()}
    multiples = [i for i, kind in enumerate(kinds.values()) if kind not in ("constexpr", "fp32") and variant.is_aligned]
    attributes = {(i,): [["tt.divisibility", 16]] for i in multiples}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=places, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=variant.launch)


for kernel, variants in KERNELS:
    for variant in variants:
        for capability in CAPABILITIES:
            compiled = compile_variant(kernel, variant, capability)
            assert compiled.asm["cubin"]
            assert compiled.metadata.shared <= variant.shared_bytes, (variant, compiled.metadata.shared)
    print(kernel.__name__)
