"""Checks of the Triton kernels on a real GPU against their references; `make bench-gpu` runs them first.

Prints one line per check, and exits with 1 if a check failed, with 2 without a CUDA device. Needs only torch, numpy,
OpenCV and Triton. Under the interpreter the same kernels are tested in tests/engine/kernels/interpreted_triton.
"""

import copy
import itertools
import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from engine.kernels.decoder_attention import Cells, attend_to_cells, attend_to_tokens
from engine.kernels.nms import box_nms
from engine.kernels.upsample_runs import needed_low_hw
from tests.engine.kernels.upsampling import GEOMETRIES, Geometry, assert_same, make_frame, run

ATTENTION = [(2, 75, 128, 4), (64, 1600, 128, 4), (64, 4096, 256, 8), (3, 4131, 256, 8)]
"""Points, cells, channels and heads."""
TOKENS = 7
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Largest |difference| to float64 over the norm of the exact result."""


def main() -> None:
    if not torch.cuda.is_available():
        print("check_gpu_kernels: torch finds no CUDA device here; nothing was checked", file=sys.stderr)
        raise SystemExit(2)
    failed = 0
    for name, work in checks():
        try:
            found = work()
            torch.cuda.synchronize()
            print(f"ok    {name} {found}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL  {name}: {type(error).__name__}: {str(error)[:500]}", flush=True)
    print(f"{failed} checks failed")
    raise SystemExit(1 if failed else 0)


def checks() -> list[tuple[str, Callable[[], str]]]:
    """List the checks: a name, and a function that raises or returns what it found."""
    found: list[tuple[str, Callable[[], str]]] = []
    for name, geometry in GEOMETRIES.items():
        found.append((f"runs of masks, {name}", lambda geometry=geometry: check_runs(geometry)))  # type: ignore[misc]
    for boxes, threshold in itertools.product((1, 33, 200, 3000), (0.3, 0.7)):
        found.append((f"NMS of {boxes} boxes at {threshold}", lambda n=boxes, at=threshold: check_nms(n, at)))  # type: ignore[misc]
    for sizes, dtype, shared in itertools.product(ATTENTION, TOLERANCE, (False, True)):
        name = f"attention {sizes} {dtype} {'one image' if shared else 'an image each'}"
        found.append((name, lambda s=sizes, d=dtype, one=shared: check_attention(s, d, is_shared=one)))  # type: ignore[misc]
    return found


def check_runs(geometry: Geometry) -> str:
    """Compare run lengths, boxes, areas and stability of five rough masks exactly."""
    frame, side = make_frame(geometry), geometry[3]
    rows, columns = needed_low_hw(frame, side)
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(5, 1, max(2, rows // 6), max(2, columns // 6), generator=generator)
    smooth = F.interpolate(coarse, (rows, columns), mode="bicubic")[:, 0]
    logits = 4 * smooth + 0.3 * torch.randn(5, rows, columns, generator=generator)
    assert_same(run(logits.cuda(), frame, side, "triton"), run(logits, frame, side, "reference"))
    return "equal"


def check_nms(count: int, threshold: float) -> str:
    rng = np.random.default_rng(count)
    low_N2 = rng.integers(0, 600, (count, 2))
    boxes_N4 = np.concatenate([low_N2, low_N2 + rng.integers(0, 200, (count, 2))], axis=1)
    scores_N = rng.integers(0, 50, count) / 50
    kept = [box_nms(boxes_N4, scores_N, threshold, backend=backend).tolist() for backend in ("triton", "reference")]
    assert kept[0] == kept[1], f"{len(kept[0])} kept, expected {len(kept[1])}"
    return "equal"


def check_attention(sizes: tuple[int, int, int, int], dtype: torch.dtype, *, is_shared: bool) -> str:
    """Compare both directions of attention with float64; return the larger relative error."""
    points, cells, channels, heads = sizes
    generator = torch.Generator().manual_seed(cells)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to("cuda", dtype)

    image_PNC = random(1 if is_shared else points, cells, channels).expand(points, -1, -1)
    given = Cells(image_PNC=image_PNC, position_NC=random(cells, channels))
    exact = Cells(image_PNC=given.image_PNC.double(), position_NC=given.position_NC.double())
    keys_PATC = random(points, heads, TOKENS, channels) / channels**0.5
    values_PATC, bias_PAT = random(points, heads, TOKENS, channels), random(points, heads, TOKENS)
    norm = nn.LayerNorm(channels, device="cuda").requires_grad_(False)

    moved_PSC = keys_PATC.flatten(1, 2)
    pairs = [
        (attend_to_cells(moved_PSC, given, backend="triton"), attend_to_cells(moved_PSC.double(), exact)),
        (
            attend_to_tokens(given, keys_PATC, bias_PAT, values_PATC, norm, backend="triton"),
            attend_to_tokens(
                exact, keys_PATC.double(), bias_PAT.double(), values_PATC.double(), copy.deepcopy(norm).double()
            ),
        ),
    ]
    error = max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs)
    assert error <= TOLERANCE[dtype], f"relative error {error:.1e}, expected at most {TOLERANCE[dtype]}"
    return f"relative error {error:.1e}"


if __name__ == "__main__":
    main()
