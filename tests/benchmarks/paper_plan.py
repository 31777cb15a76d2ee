"""Cost of a run of the paper's size, 11 million images and 1.1 billion masks, at a rate of images per second.

    python tests/benchmarks/paper_plan.py [--images-per-s 40] [--gpus 64] [--dollars-per-gpu-hour 3] [--json]

This is arithmetic only. The rate is that of one GPU, from shard to committed shard. By default, these are the target
rates on one H200 (`grid`) and, for the paper's 21 crops, half of what their counted arithmetic allows there. All other
assumptions are printed beside the result.
"""

import argparse
import json
from dataclasses import asdict, dataclass

HOUR_S = 3600.0
TIB = 2**40


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Assumptions of a plan."""

    images: int = 11_000_000
    masks_per_image: int = 100
    """SA-1B: 1.1 billion masks on 11 million images."""
    images_per_shard: int = 256
    bytes_per_image: int = 950_000
    """Size of a JPEG of 1500 px on its shorter side; SA-1B's are similar."""
    bytes_per_mask: int = 566
    """Bytes per mask in a mask shard: run lengths and figures. Measured with the seed: 452 masks on 10 images."""
    bytes_per_mask_row: int = 284
    """Bytes per mask in the tables, from the same measurement. Tables of large shards take less."""
    rate_kept: float = 0.9
    """Fraction of the rate that remains after start-up, uneven last shards and lost machines."""
    gpus: int = 64
    dollars_per_gpu_hour: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a run at one rate."""

    what: str
    images_per_s: float
    gpu_hours: float
    dollars: float
    days: float
    """Days of the run with the assumed number of GPUs."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the dataset at the end."""

    masks: int
    shards: int
    image_tib: float
    mask_tib: float
    table_tib: float


RATES = {
    "vit_h, grid (rate asked for)": 40.0,
    "vit_b, grid (rate asked for)": 120.0,
    "vit_h, paper's crops (half of counted arithmetic)": 2.35,
    "vit_b, paper's crops (half of counted arithmetic)": 12.5,
}
"""Images per second on one H200. Crops: 214 and 40 ms of arithmetic at 600 TFLOP/s, doubled."""


def main() -> None:
    arguments = parse_arguments()
    assumed = Assumptions(
        gpus=arguments.gpus, dollars_per_gpu_hour=arguments.dollars_per_gpu_hour, images=arguments.images
    )
    rates = RATES if arguments.images_per_s is None else {"measured": arguments.images_per_s}
    costs = [cost(what, rate, assumed) for what, rate in rates.items()]
    if arguments.json:
        print(json.dumps({"assumed": asdict(assumed), "size": asdict(size(assumed)), "cost": list(map(asdict, costs))}))
        return
    print("\n".join(table(costs)))
    print()
    for name, value in {**asdict(size(assumed)), **asdict(assumed)}.items():
        print(f"{name:<22}{value:>16,}" if isinstance(value, int) else f"{name:<22}{value:>16,.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images-per-s", type=float, help="images per second of one GPU; default: the target rates")
    parser.add_argument("--images", type=int, default=Assumptions.images)
    parser.add_argument("--gpus", type=int, default=Assumptions.gpus)
    parser.add_argument("--dollars-per-gpu-hour", type=float, default=Assumptions.dollars_per_gpu_hour)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def cost(what: str, images_per_s: float, assumed: Assumptions) -> Cost:
    """Compute GPU-hours, dollars and days from images per second and GPU."""
    gpu_hours = assumed.images / (images_per_s * assumed.rate_kept) / HOUR_S
    return Cost(
        what=what,
        images_per_s=images_per_s,
        gpu_hours=gpu_hours,
        dollars=gpu_hours * assumed.dollars_per_gpu_hour,
        days=gpu_hours / assumed.gpus / 24,
    )


def size(assumed: Assumptions) -> Size:
    """Compute the number of image and mask shards, and bytes."""
    masks = assumed.images * assumed.masks_per_image
    return Size(
        masks=masks,
        shards=-(-assumed.images // assumed.images_per_shard),
        image_tib=assumed.images * assumed.bytes_per_image / TIB,
        mask_tib=masks * assumed.bytes_per_mask / TIB,
        table_tib=masks * assumed.bytes_per_mask_row / TIB,
    )


def table(costs: list[Cost]) -> list[str]:
    """Format the rows of a Markdown table."""
    rows = ["| one H200, per GPU | images/s | GPU-hours | dollars | days |", "|---|---|---|---|---|"]
    return rows + [
        f"| {each.what} | {each.images_per_s:g} | {each.gpu_hours:,.0f} | {each.dollars:,.0f} | {each.days:.2f} |"
        for each in costs
    ]


if __name__ == "__main__":
    main()
