"""Compiles every Triton kernel for NVIDIA GPUs, which needs none, and prints their names; run by test_triton.py."""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine.kernels import nms_triton, upsample_runs_triton

POINTERS = {
    "*fp32": ["logits", "row_weights", "column_weights"],
    "*fp64": ["boxes", "limit"],
    "*i32": ["low_rows", "low_columns", "words", "box", "changes"],
    "*i64": ["pixels", "places", "bounds"],
    "fp32": ["offset", "margin"],
}
TYPES = {name: kind for kind, names in POINTERS.items() for name in names}
WALKS: list[dict[str, Any]] = [
    {"FULL_HEIGHT": full, "ENDS_IMAGE": ends, "COLUMNS": 128} for full in (False, True) for ends in (False, True)
]
KERNELS: list[tuple[Any, list[dict[str, Any]]]] = [
    (upsample_runs_triton.evaluate_kernel, [{"COLUMNS": 64, "EMULATE_FMA": False}]),
    (upsample_runs_triton.count_kernel, WALKS),
    (upsample_runs_triton.write_kernel, WALKS),
    (nms_triton.pairs_kernel, [{}]),
]
CAPABILITIES = (80, 90)
"""A100; H100 and H200."""

for kernel, variants in KERNELS:
    for constants in variants:
        kinds = {name: "constexpr" if name in constants else TYPES.get(name, "i32") for name in kernel.arg_names}
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        for capability in CAPABILITIES:
            source = ASTSource(fn=kernel, signature=kinds, constexprs=places)
            assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
    print(kernel.__name__)
