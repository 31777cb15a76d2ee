"""Post-processing of a mask on one CPU core: low-resolution logits to runs, stability and box at 2250 x 1500.

    python tests/benchmarks/bench_upsample_runs.py

Synthetic masks of the sizes and edge slopes of trained networks (wobbly discs, 2 to 9 logits per low-resolution pixel
at the edge) and, as the worst case, pure noise. The peer is the reference, one mask at a time; the results must be
equal. Prints one JSON line per case.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from engine.images import Frame
from engine.kernels.upsample_runs import Backend, UpsampledMasks, needed_low_hw, upsample_runs

MASKS = 32
FRAME, LOW_SIDE = Frame.whole((1500, 2250), 1024), 256


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    cases = {
        "objects": discs(np.random.default_rng(0)),
        "noise, the worst case": torch.randn(MASKS, LOW_SIDE, LOW_SIDE, generator=torch.Generator().manual_seed(0)),
    }
    for case, logits_NLL in cases.items():
        numba_ms, ours = timed(logits_NLL, "numba")
        torch_ms, theirs = timed(logits_NLL, "reference")
        same = [a == b for a, b in zip(ours.rles, theirs.rles, strict=True)]
        print_line(case, numba_ms, torch_ms, agreement=float(np.mean(same)))


def timed(logits_NLL: torch.Tensor, backend: Backend) -> tuple[float, UpsampledMasks]:
    """Measure CPU milliseconds per mask, after loading compiled code."""
    settings = {"low_side": LOW_SIDE, "stability_offset": 1.0, "backend": backend}
    upsample_runs(logits_NLL[:1], FRAME, **settings)
    start = time.process_time()
    found = upsample_runs(logits_NLL, FRAME, **settings)
    return 1e3 * (time.process_time() - start) / len(logits_NLL), found


def discs(rng: np.random.Generator) -> torch.Tensor:
    """Draw logits of wobbly discs, saturating, with a little noise; float32 [MASKS, L, L]."""
    rows, columns = needed_low_hw(FRAME, LOW_SIDE)
    y_LL, x_LL = np.mgrid[0:LOW_SIDE, 0:LOW_SIDE].astype(np.float32)
    masks = []
    for _ in range(MASKS):
        dx_LL, dy_LL = x_LL - rng.uniform(0, columns), y_LL - rng.uniform(0, rows)
        angle_LL = np.arctan2(dy_LL, dx_LL)
        waves = [rng.uniform(0, 0.12) * np.cos(k * angle_LL + rng.uniform(0, 6.3)) for k in range(2, 7)]
        radius = np.exp(rng.normal(np.log(0.07 * LOW_SIDE), 0.8)) + 1.5
        inside_LL = radius * (1 + sum(waves)) - np.hypot(dx_LL, dy_LL)
        noise_LL = rng.normal(0, 0.25, (LOW_SIDE, LOW_SIDE))
        masks.append(14 * np.tanh(inside_LL * rng.uniform(2, 9) / 14) + noise_LL)
    return torch.tensor(np.stack(masks), dtype=torch.float32)


def print_line(case: str, value: float, peer_value: float, *, agreement: float) -> None:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    line = {
        "bench": "upsample_runs",
        "metric": f"post-processing of a mask ({case})",
        "value": round(value, 3),
        "unit": "ms CPU",
        "peer": "torch, one mask at a time",
        "peer_value": round(peer_value, 3),
        "ratio": round(peer_value / value, 2),
        "machine": f"{platform.machine()}, {names[0].split(':')[1].strip() if names else 'unknown CPU'}, 1 thread",
        "agreement": agreement,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
