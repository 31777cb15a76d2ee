"""Time and memory of automatic masks on a CPU, beside the transformers pipeline with equal weights and thresholds.

    python tests/benchmarks/bench_generate.py [--model seed] [--photo FILE] [--longest-side 800] [--compare precision]

Each side runs in its own process with one thread, after a warm-up on a thumbnail (compiled kernels are loaded, not
compiled). Memory is the peak of resident memory during the call, minus that just before it. Thresholds are quantiles
of the image's own scores, such that about a tenth of the candidates pass; of several such pairs, the one that leaves
the most masks. Both sides use our encoder. Prints one JSON line per metric; every line has the agreement.
`--model random-vit_b` is a ViT-B of full size with random weights (random_sam.py); `--nms .99` leaves enough masks.
`--compare precision` compares our bf16 with our fp32 instead, at the model's own thresholds.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_pipeline import agreement, make_peer, open_thresholds, peer_masks
from random_sam import NAME as RANDOM
from random_sam import random_vit_b

from engine.automatic.config import GenerateConfig
from engine.automatic.filters import Filter, is_confident, is_stable
from engine.automatic.generate import Generated, generate_masks
from engine.images import decode, resize
from engine.kernels.nms import box_nms
from engine.model.weights import Model, load_model
from storage import rle
from storage.rle import Rle

QUANTILES = [(0.9, 0.01), (0.85, 0.33), (0.8, 0.5), (0.7, 0.67), (0.6, 0.75), (0.5, 0.8), (0.3, 0.86)]
"""Quantiles of predicted IoU, then of the stability of those that pass; each pair passes a tenth of the candidates."""


def main() -> None:
    arguments = parse_arguments()
    if arguments.side:
        print(json.dumps(run_side(arguments)))
        return
    photo = load_photo(arguments)
    if arguments.compare == "precision":
        compare_precisions(arguments, photo)
        return
    config = choose_thresholds(arguments, photo)
    ours, peers = (run_child(arguments, side, config) for side in ("ours", "peer"))
    match = agreement(masks_of(ours, photo), masks_of(peers, photo))
    facts = {
        "model": arguments.model,
        "photo": f"{photo.shape[1]}x{photo.shape[0]}",
        "candidates": ours["candidates"],
        "pass_rate": round(ours["passed"] / ours["candidates"], 4),
        "masks": match.ours,
        "peer_masks": match.peers,
        "agreement": round(match.share, 4),
        "points_per_side": arguments.points_per_side,
        "box_nms_threshold": arguments.nms,
        "threads": 1,
    }
    for metric, unit in (("cpu_time", "s"), ("peak_memory", "MiB")):
        print_line(metric, unit, ours[metric], peers[metric], facts)


def compare_precisions(arguments: argparse.Namespace, photo: np.ndarray) -> None:
    """Print what bf16 saves, and the fraction of masks that match one of the other list."""
    fp32 = GenerateConfig(points_per_side=arguments.points_per_side, box_nms_threshold=arguments.nms)
    if arguments.model == RANDOM:  # its card knows nothing of its scores
        fp32 = choose_thresholds(arguments, photo)
    sides = [run_child(arguments, "ours", replace(fp32, precision=precision)) for precision in ("bf16", "fp32")]
    ours, peers = (masks_of(side, photo) for side in sides)
    facts = {
        "model": arguments.model,
        "photo": f"{photo.shape[1]}x{photo.shape[0]}",
        "masks": len(ours),
        "peer_masks": len(peers),
        "matched_at_0.99": round(agreement(ours, peers).share, 4),
        "matched_at_0.9": round(agreement(ours, peers, least_iou=0.9).share, 4),
        "points_per_side": arguments.points_per_side,
        "threads": 1,
    }
    for metric, unit in (("cpu_time", "s"), ("peak_memory", "MiB")):
        print_line(metric, unit, sides[0][metric], sides[1][metric], facts, bench="precision", peer="the same in fp32")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="seed", help=f"a model's name, the path of its weights, or {RANDOM}")
    parser.add_argument("--photo", help="a photo; default: a part of scikit-image's astronaut")
    parser.add_argument(
        "--longest-side", type=int, default=800, help="longest side of the photo after resizing, in pixels"
    )
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument(
        "--nms", type=float, default=0.7, help="box IoU above which masks are duplicates, on both sides"
    )
    parser.add_argument("--compare", choices=["peer", "precision"], default="peer")
    parser.add_argument("--side", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    return parser.parse_args()


def model_of(arguments: argparse.Namespace) -> Model:
    return random_vit_b() if arguments.model == RANDOM else load_model(arguments.model)


def load_photo(arguments: argparse.Namespace) -> np.ndarray:
    if arguments.photo:
        photo = decode(Path(arguments.photo).read_bytes())
    else:
        from skimage import data

        photo = data.astronaut()[:342]
    scale = arguments.longest_side / max(photo.shape[:2])
    return resize(photo, (round(photo.shape[0] * scale), round(photo.shape[1] * scale)))


def choose_thresholds(arguments: argparse.Namespace, photo: np.ndarray) -> GenerateConfig:
    config = GenerateConfig(points_per_side=arguments.points_per_side, box_nms_threshold=arguments.nms)
    everything = replace(
        config,
        points_per_side=min(16, arguments.points_per_side),
        predicted_iou_threshold=-100.0,  # random weights predict less than 0
        stability_threshold=0.0,
        box_nms_threshold=1.01,
        min_region_px=0,
        max_area_fraction=None,
    )
    every = generate_masks(model_of(arguments), photo, everything)
    choices = [open_thresholds(every, config, iou_quantile=q, stability_quantile=s) for q, s in QUANTILES]
    return max(choices, key=lambda choice: masks_left(every, choice))


def masks_left(every: Generated, config: GenerateConfig) -> int:
    """Count the masks that would pass these thresholds and NMS."""
    iou_N, stability_N = (np.array([getattr(m, s) for m in every.masks]) for s in ("predicted_iou", "stability_score"))
    passed_N = is_confident(iou_N, config.predicted_iou_threshold) & is_stable(stability_N, config.stability_threshold)
    boxes_N4 = np.array([mask.box_xyxy for mask in every.masks])
    return len(box_nms(boxes_N4[passed_N], iou_N[passed_N], config.box_nms_threshold))


def run_child(arguments: argparse.Namespace, side: str, config: GenerateConfig) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--config", json.dumps(asdict(config))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_side(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one side in this process: its masks, CPU seconds and peak memory."""
    torch.set_num_threads(1)
    photo, config = load_photo(arguments), GenerateConfig(**json.loads(arguments.config))
    model = model_of(arguments)
    generate: Callable[[np.ndarray, GenerateConfig], dict[str, Any]]
    if arguments.side == "ours":

        def generate(image: np.ndarray, config: GenerateConfig) -> dict[str, Any]:
            result = generate_masks(model, image, config)
            counts = result.diagnostics
            passed = (
                counts.candidates - counts.taken[Filter.FAILED_PREDICTED_IOU] - counts.taken[Filter.FAILED_STABILITY]
            )
            masks = [rle.to_coco(mask.rle) for mask in result.masks]
            return {"masks": masks, "candidates": counts.candidates, "passed": passed}

    else:
        peer = make_peer(model.sam)

        def generate(image: np.ndarray, config: GenerateConfig) -> dict[str, Any]:
            with torch.inference_mode():
                return {"masks": [rle.to_coco(runs) for runs in peer_masks(peer, image, config)]}

    thumbnail = resize(photo, (photo.shape[0] // 8, photo.shape[1] // 8))
    generate(thumbnail, replace(config, points_per_side=2, predicted_iou_threshold=1e-6, stability_threshold=1e-6))
    before_mib = reset_peak_memory()
    start = time.process_time()
    found = generate(photo, config)
    return found | {"cpu_time": time.process_time() - start, "peak_memory": status_mib("VmHWM") - before_mib}


def reset_peak_memory() -> float:
    """Measure resident memory, in MiB, and reset the kernel's record of its peak."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_mib("VmRSS")


def status_mib(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) / 1024


def masks_of(side: dict[str, Any], photo: np.ndarray) -> list[Rle]:
    height, width = photo.shape[:2]
    return [rle.from_coco(counts, height=height, width=width) for counts in side["masks"]]


def print_line(
    metric: str,
    unit: str,
    value: float,
    peer_value: float,
    facts: dict[str, Any],
    *,
    bench: str = "generate",
    peer: str = "transformers mask-generation pipeline",
) -> None:
    line = {
        "bench": bench,
        "metric": metric,
        "value": round(value, 3),
        "unit": unit,
        "peer": peer,
        "peer_value": round(peer_value, 3),
        "ratio": round(peer_value / value, 2),
        "machine": f"{platform.machine()}, {cpu_name()}, torch {torch.__version__}",
    }
    print(json.dumps(line | facts), flush=True)


def cpu_name() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else "unknown CPU"


if __name__ == "__main__":
    main()
