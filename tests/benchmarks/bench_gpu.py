"""Automatic masks on one NVIDIA GPU: images per second, fraction of the arithmetic floor, memory and a time profile.

    make bench-gpu ARGS="--models seed vit_b vit_h --presets grid paper --images 100"

Needs only torch, numpy, OpenCV and safetensors; GPU_PYTHON=python3 names a Python that has them. `--shards`, which
measures from image shard to committed mask shard, needs all of gigamask.
Images are those of `--photos FOLDER`, or the test photos, resized to 2250 x 1500 and kept as JPEG.
Released weights are used if they are in the models folder, otherwise random ones whose masks have shapes
(random_sam.py). Thresholds are quantiles of an image's own scores, so a given fraction of the candidates passes.

Prints one JSON line per figure.
`agreement`: fraction of masks with equal runs from the Triton kernels and the reference, on this device.
`decoder_agreement`: mask pixels and predicted IoU of the fused decoder against plain torch, in the precision measured.
`throughput`: encoded image to run lengths, `--threads` images at a time, after an announced warm-up.
`floor_share`: counted FLOPs per image, times the rate, over the FLOP/s of a large bf16 matrix product here.
`predict_memory_floor`: counted bytes of the decoder's kernels, over a copy's bytes per second, over the time of
`predict`.
`memory`: peak of reserved GPU memory in the last tenth of the images over that in the second tenth.
`time`: the parts of an image separately, and the kernels that take longest.
Without a CUDA device it prints an error and exits with 2. `--device cpu` only tests the benchmark itself.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from json_lines import print_line
from random_sam import random_vit
from torch.utils.flop_counter import FlopCounterMode

from engine.automatic.config import PRESETS, GenerateConfig
from engine.automatic.filters import Filter
from engine.automatic.generate import Generated, generate_masks
from engine.automatic.overlap import overlapped
from engine.images import Frame, decode, resize
from engine.kernels.decoder_attention import fastest_backend as fastest_attention
from engine.kernels.upsample_runs import fastest_backend, needed_low_hw, upsample_runs
from engine.model.config import VIT_B, VIT_H, VIT_L
from engine.model.grid_decoder import DecoderKind, PointDecoder, make_point_decoder
from engine.model.weights import Model, load_model
from engine.prompts import point_grid
from tests.paths import PHOTOS

ORIGINAL = {"vit_b": VIT_B, "vit_l": VIT_L, "vit_h": VIT_H}
DECODERS: tuple[DecoderKind, DecoderKind] = ("auto", "grid")
"""Point decoders to compare: the fastest one here, and plain torch."""
GOALS = {("vit_b", "grid"): 120.0, ("vit_h", "grid"): 40.0}
"""Images per second expected on one H200."""


def main() -> None:
    arguments = parse_arguments()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("bench_gpu: torch finds no CUDA device here; nothing was measured", file=sys.stderr)
        raise SystemExit(2)
    photos = load_photos(arguments)
    peak = gemm_flops(arguments.device)
    for name in arguments.models:
        model = load(name, arguments.device)
        for preset in arguments.presets:
            measure(name, model, preset, photos, peak, arguments)
        if arguments.shards:
            measure_shards(name, photos, arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["seed", "vit_b", "vit_h"], choices=["seed", *ORIGINAL])
    parser.add_argument("--presets", nargs="+", default=["grid", "paper"], choices=list(PRESETS))
    parser.add_argument("--images", type=int, default=100, help="images to measure; 500 show whether memory stays flat")
    parser.add_argument("--photos", type=Path, help="folder of photos; default: the test photos")
    parser.add_argument("--size", default="2250x1500", help="width x height that photos are resized to")
    parser.add_argument("--threads", type=int, default=8, help="images processed at the same time")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--points-per-batch", type=int, default=256)
    parser.add_argument("--crops-per-batch", type=int, default=21)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument(
        "--pass-share", type=float, default=0.1, help="fraction of the candidates that passes both thresholds"
    )
    parser.add_argument("--shards", action="store_true", help="also measure from image shard to committed mask shard")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help=argparse.SUPPRESS)
    return parser.parse_args()


def load_photos(arguments: argparse.Namespace) -> list[bytes]:
    """Load photos as JPEGs of the given size; sides are swapped for upright photos."""
    width, height = (int(side) for side in arguments.size.split("x"))
    folder = arguments.photos or PHOTOS
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not files:
        raise SystemExit(f"{folder}: no JPEG or PNG file")
    encoded = []
    for file in files[: arguments.images]:
        image_HW3 = decode(file.read_bytes())
        is_upright = image_HW3.shape[0] > image_HW3.shape[1]
        image_HW3 = resize(image_HW3, (width, height) if is_upright else (height, width))
        encoded.append(cv2.imencode(".jpg", image_HW3[..., ::-1])[1].tobytes())
    return encoded


def load(name: str, device: str) -> Model:
    """Load a model by name, with random weights where the released ones are missing."""
    try:
        return load_model(name, device=device)
    except ValueError as error:
        if name not in ORIGINAL:
            raise
        print(f"{name}: random weights ({error})", file=sys.stderr)
    model = random_vit(f"random-{name}", ORIGINAL[name])
    return replace(model, sam=model.sam.to(device))


def measure(
    name: str, model: Model, preset: str, photos: list[bytes], peak_flops: float, arguments: argparse.Namespace
) -> None:
    config = replace(
        PRESETS[preset],
        points_per_side=arguments.points_per_side,
        points_per_batch=arguments.points_per_batch,
        crops_per_batch=arguments.crops_per_batch,
        precision=arguments.precision,
    )
    print(f"{name} {preset}: warming up; Triton compiles its kernels once and caches them", file=sys.stderr)
    start = time.perf_counter()
    config = with_thresholds(model, decode(photos[0]), config, arguments.pass_share)
    example = generate_masks(model, decode(photos[0]), config)
    list(overlapped(lambda data: masks_of(model, data, config), photos[:3], threads=3, device=arguments.device))
    facts = {
        "model": model.name,
        "preset": preset,
        "photo": arguments.size,
        "precision": config.precision,
        "kernels": fastest_backend(arguments.device),
        "decoder_attention": attention_of(model, config, arguments.device),
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "pass_share": round(passed(example) / example.diagnostics.candidates, 4),
        "masks_of_first": len(example.masks),
    }
    print_line("gpu", "warm_up", time.perf_counter() - start, "s", **facts)
    print_line("gpu", "agreement", agreement(model, decode(photos[0]), config), "of masks", **facts)
    same_pixels, iou_difference = decoder_agreement(model, decode(photos[0]), config, arguments.device)
    print_line("gpu", "decoder_agreement", same_pixels, "of pixels", iou_largest_difference=iou_difference, **facts)

    items = [photos[i % len(photos)] for i in range(arguments.images)]
    rate, masks, peaks = throughput(model, items, config, arguments)
    goal = GOALS.get((name, preset))
    print_line(
        "gpu", "throughput", rate, "images/s", goal_on_h200=goal, masks=masks, threads=arguments.threads, **facts
    )
    flops = count_flops(model, decode(photos[0]), config)
    print_line(
        "gpu", "floor_share", flops * rate / peak_flops, "of the matrix product's FLOP/s",
        tflop_per_image=flops / 1e12, matrix_tflops=peak_flops / 1e12, **facts,
    )  # fmt: skip
    if peaks:
        tenth = max(1, len(peaks) // 10)
        early, late = max(peaks[tenth : 2 * tenth] or peaks), max(peaks[-tenth:])
        print_line("gpu", "memory", late / early, "late over early peak", peak_gib=max(peaks) / 2**30, **facts)
    print_profile(model, decode(photos[0]), config, facts, arguments.device)


def attention_of(model: Model, config: GenerateConfig, device: str) -> str:
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return fastest_attention(torch.device(device), dtype, model.sam.config.width, model.sam.config.decoder_heads)


def with_thresholds(model: Model, image_HW3: np.ndarray, config: GenerateConfig, pass_share: float) -> GenerateConfig:
    """Set thresholds at quantiles of this image's scores: predicted IoU and stability select equally."""
    everything = replace(
        config, points_per_side=min(16, config.points_per_side), crop_layers=0, predicted_iou_threshold=0.0,
        stability_threshold=0.0, box_nms_threshold=1.01, min_region_px=0, max_area_fraction=None,
    )  # fmt: skip
    every = generate_masks(model, image_HW3, everything).masks
    iou_N = np.array([mask.predicted_iou for mask in every])
    stability_N = np.array([mask.stability_score for mask in every])
    iou = float(np.quantile(iou_N, 1 - pass_share**0.5))
    stability = float(np.quantile(stability_N[iou_N > iou], 1 - pass_share**0.5))
    if min(iou, stability) <= 0:  # the generator takes such a threshold for none
        raise SystemExit(f"{model.name}: thresholds {iou}, {stability} pass {pass_share}, expected above 0")
    return replace(config, predicted_iou_threshold=iou, stability_threshold=stability)


def passed(result: Generated) -> int:
    counts = result.diagnostics
    return counts.candidates - counts.taken[Filter.FAILED_PREDICTED_IOU] - counts.taken[Filter.FAILED_STABILITY]


def masks_of(model: Model, data: bytes, config: GenerateConfig) -> int:
    return len(generate_masks(model, decode(data), config).masks)


@torch.inference_mode()
def agreement(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> float:
    """Compute the fraction of masks, for a sample of points, with equal runs, box and stability from both backends."""
    frame, decoder, points = setup(model, image_HW3, points_per_side=4)
    prediction = decoder.predict(points)
    every_PM = torch.ones(prediction.iou_PM.shape, dtype=torch.bool)
    low_side = decoder.low_side
    logits_KRC = decoder.mask_logits(prediction, every_PM, needed_low_hw(frame, low_side)).float()
    settings: dict[str, Any] = {"low_side": low_side, "stability_offset": config.stability_offset}
    fast = upsample_runs(logits_KRC, frame, **settings)
    plain = upsample_runs(logits_KRC.cpu(), frame, **settings, backend="reference")
    same_K = [a == b for a, b in zip(fast.rles, plain.rles, strict=True)]
    same_box_K = (fast.boxes_incl_N4 == plain.boxes_incl_N4).all(axis=1)
    return float(np.mean(np.array(same_K) & same_box_K & (fast.stability_N == plain.stability_N)))


@torch.inference_mode()
def decoder_agreement(model: Model, image_HW3: np.ndarray, config: GenerateConfig, device: str) -> tuple[float, float]:
    """Compute the fraction of low-resolution pixels on the same side of 0, and the largest difference of predicted IoU.

    Of a sample of points, between the decoder that "auto" stands for and the one in plain torch.
    """
    with torch.autocast(device, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
        results = []
        for kind in DECODERS:
            frame, decoder, points = setup(model, image_HW3, points_per_side=4, kind=kind)
            prediction = decoder.predict(points)
            every_PM = torch.ones(prediction.iou_PM.shape, dtype=torch.bool)
            logits_KRC = decoder.mask_logits(prediction, every_PM, needed_low_hw(frame, decoder.low_side))
            results.append((prediction.iou_PM.float(), logits_KRC > 0))
    (fast_iou_PM, fast_KRC), (plain_iou_PM, plain_KRC) = results
    return float((fast_KRC == plain_KRC).float().mean()), float((fast_iou_PM - plain_iou_PM).abs().max())


def setup(
    model: Model, image_HW3: np.ndarray, *, points_per_side: int, kind: DecoderKind = "auto"
) -> tuple[Frame, PointDecoder, torch.Tensor]:
    """Make the whole image's frame, its decoder (fp32 unless autocast is on), and a grid of points in model pixels."""
    height, width = image_HW3.shape[:2]
    frame = Frame.whole((height, width), model.sam.config.input_side)
    decoder = make_point_decoder(kind, model.sam, model.sam.encode(model.sam.preprocess(image_HW3)[None]))
    return frame, decoder, torch.from_numpy(frame.points_to_model(point_grid(points_per_side) * (width, height)))


def throughput(
    model: Model, items: list[bytes], config: GenerateConfig, arguments: argparse.Namespace
) -> tuple[float, int, list[int]]:
    """Measure images per second, the number of masks, and the peak of reserved GPU memory around each image."""
    masks, peaks = 0, []
    start = time.perf_counter()
    device, threads = arguments.device, arguments.threads
    for found in overlapped(lambda data: masks_of(model, data, config), items, threads=threads, device=device):
        masks += found
        if device == "cuda":
            peaks.append(torch.cuda.max_memory_reserved())
            torch.cuda.reset_peak_memory_stats()
    return len(items) / (time.perf_counter() - start), masks, peaks


def count_flops(model: Model, image_HW3: np.ndarray, config: GenerateConfig) -> float:
    """Count the FLOPs of matrix products, convolutions and attention in one image."""
    model.sam.requires_grad_(False)  # the counter would ask inference tensors for their gradients
    try:
        with FlopCounterMode(display=False) as counter:
            # the counter loses autocast in its decompositions, and knows nothing of our kernels
            generate_masks(model, image_HW3, replace(config, precision="fp32"), decoder="grid")
    finally:
        model.sam.requires_grad_(True)
    return float(counter.get_total_flops())


def gemm_flops(device: str) -> float:
    """Measure FLOP/s of a large bf16 matrix product, the best of ten: the limit of arithmetic on this device."""
    side = 8192 if device == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = [timed(lambda: a @ b, device) for _ in range(10)]
    return 2 * side**3 / min(seconds)


def bytes_of_ask(model: Model, points: int, config: GenerateConfig) -> int:
    """Count the bytes of the points' images that decoder_attention_triton's kernels read and write."""
    sizes = model.sam.config
    passes = 3 * sizes.decoder_depth - 1  # first block: written; later ones: read, read and written; at the end: read
    return passes * points * sizes.embedding_side**2 * sizes.width * (2 if config.precision == "bf16" else 4)


def copy_bytes_per_second(device: str) -> float:
    """Measure bytes per second read and written by a large copy, the best of ten."""
    source = torch.empty(2**30 if device == "cuda" else 2**25, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / min(timed(lambda: target.copy_(source), device) for _ in range(10))


def timed(work: Callable[[], object], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def print_profile(
    model: Model, image_HW3: np.ndarray, config: GenerateConfig, facts: dict[str, Any], device: str
) -> None:
    """Print the times of the parts of one image, without overlap, then of the GPU's longest kernels."""
    milliseconds_of = dict(parts(model, image_HW3, config, device))
    for part, milliseconds in milliseconds_of.items():
        print_line("gpu", f"time: {part}", milliseconds, "ms", **facts)
    points = min(config.points_per_batch, config.points_per_side**2)
    floor_ms = 1e3 * bytes_of_ask(model, points, config) / copy_bytes_per_second(device)
    share = floor_ms / milliseconds_of[f"predict {points} points"]
    print_line("gpu", "predict_memory_floor", share, "of predict's time", floor_ms=floor_ms, points=points, **facts)
    if device != "cuda":
        return
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        generate_masks(model, image_HW3, config)
    events = [event for event in profile.key_averages() if event.device_type.name == "CUDA"]
    events.sort(key=lambda event: -event.self_device_time_total)
    total_us = sum(event.self_device_time_total for event in events) or 1
    print_line("gpu", "time: all kernels", total_us / 1e3, "ms", launches=sum(e.count for e in events), **facts)
    for event in events[:12]:
        share = event.self_device_time_total / total_us
        name = f"time: kernel {event.key[:80]}"
        print_line("gpu", name, event.self_device_time_total / 1e3, "ms", launches=event.count, share=round(share, 4))


@torch.inference_mode()
def parts(model: Model, image_HW3: np.ndarray, config: GenerateConfig, device: str) -> list[tuple[str, float]]:
    """Time the parts: names and milliseconds, medians of five."""
    with torch.autocast(device, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
        pixels = model.sam.preprocess(image_HW3)[None]
        frame, decoder, points = setup(model, image_HW3, points_per_side=config.points_per_side)
        _, plain_decoder, _ = setup(model, image_HW3, points_per_side=config.points_per_side, kind="grid")
        batch = points[: config.points_per_batch]
        prediction = decoder.predict(batch)
        iou_PM = prediction.iou_PM.float()
        wanted_PM = (iou_PM >= iou_PM.flatten().quantile(0.7)).cpu()
        needed = needed_low_hw(frame, decoder.low_side)
        logits = decoder.mask_logits(prediction, wanted_PM, needed).float()
        settings: dict[str, Any] = {"low_side": decoder.low_side, "stability_offset": config.stability_offset}
        works: dict[str, Callable[[], object]] = {
            "resize": lambda: model.sam.preprocess(image_HW3),
            "encode one crop": lambda: model.sam.encode(pixels),
            f"predict {len(batch)} points": lambda: decoder.predict(batch),
            f"predict {len(batch)} points, attention in plain torch": lambda: plain_decoder.predict(batch),
            f"mask logits of {len(logits)} masks": lambda: decoder.mask_logits(prediction, wanted_PM, needed),
            f"runs of {len(logits)} masks": lambda: upsample_runs(logits, frame, **settings),
        }
        found = [(part, median_ms(work, device, 5)) for part, work in works.items()]
    return [*found, ("one image, alone", median_ms(lambda: generate_masks(model, image_HW3, config), device, 3))]


def median_ms(work: Callable[[], object], device: str, times: int) -> float:
    """Time a call in milliseconds, after a first one that is not counted."""
    work()
    return 1e3 * statistics.median(timed(work, device) for _ in range(times))


def measure_shards(name: str, photos: list[bytes], arguments: argparse.Namespace) -> None:
    """Measure images per second from image shard to committed mask shard, two shards at a time as in an actor."""
    from stages.fully_automatic.plan import plan_masks
    from stages.fully_automatic.worker import ShardWorker
    from stages.ingest.ingest import ingest_photos
    from storage.dataset import Dataset

    with tempfile.TemporaryDirectory() as folder:
        photo_folder = Path(folder) / "photos"
        photo_folder.mkdir()
        for number in range(arguments.images):
            data = photos[number % len(photos)]
            # bytes behind a JPEG's end change its hash, so that no image counts as a duplicate
            (photo_folder / f"{number:05d}.jpg").write_bytes(data + number.to_bytes(4, "little"))
        uri = str(Path(folder) / "dataset")
        dataset = Dataset.create(uri)
        ingest_photos([photo_folder], dataset)
        config = replace(PRESETS["grid"], points_per_batch=arguments.points_per_batch, precision=arguments.precision)
        worker = ShardWorker(name, config, uri, device=arguments.device)
        (plan,) = plan_masks(dataset, worker.model.identity, config)
        worker.check()
        start = time.perf_counter()
        shards = [shard.name for shard in plan.shards]
        done = list(overlapped(lambda shard: worker.mask_shard(plan.plan_id, shard), shards, threads=2))
        seconds = time.perf_counter() - start
        images = sum(result.images for result in done)
        print_line(
            "gpu", "shard to committed shard", images / seconds, "images/s", model=name, shards=len(done),
            masks=sum(result.masks for result in done), rejects=sum(result.rejects for result in done),
        )  # fmt: skip


if __name__ == "__main__":
    main()
