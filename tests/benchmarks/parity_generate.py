"""Agreement of automatic masks with the transformers pipeline, image by image.

    python tests/benchmarks/parity_generate.py FOLDER [--model seed] [--photos 20] [--points-per-side 32]
        [--thresholds card|quantiles] [--nms 0.7]

Both sides use the same weights and thresholds, and our embeddings. Images with fewer than 20 masks are listed and left
out. Matches are one to one at IoU >= 0.99; `share` is the lower fraction of the two directions. Prints a JSON line per
image and one for all; exits with 1 if fewer than 99 % match or the counts differ by more than 1 %.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from peer_pipeline import Agreement, agreement, like_the_peer, make_peer, open_thresholds, peer_masks

from engine.automatic.config import GenerateConfig
from engine.automatic.generate import generate_masks
from engine.images import decode
from engine.model.weights import Model, load_model

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}
LEAST_MASKS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of photos, with subfolders")
    parser.add_argument("--model", default="seed")
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--nms", type=float, default=0.7, help="box IoU above which masks are duplicates")
    parser.add_argument(
        "--thresholds", choices=["card", "quantiles"], default="card", help="quantiles of each image's own scores"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.model)
    peer = make_peer(model.sam)
    total, counted = Agreement(ours=0, peers=0, matched=0), 0
    paths = [path for path in spread(arguments.folder) if path.suffix.lower() in SUFFIXES]
    for path in paths:
        if counted == arguments.photos:
            break
        photo = decode(path.read_bytes())
        config = settings(model, photo, arguments)
        ours = [mask.rle for mask in generate_masks(model, photo, config).masks]
        if len(ours) < LEAST_MASKS:
            print(json.dumps({"photo": str(path.relative_to(arguments.folder)), "left_out": f"{len(ours)} masks"}))
            continue
        with torch.inference_mode():
            found = agreement(ours, peer_masks(peer, photo, config))
        total, counted = total + found, counted + 1
        print_agreement(str(path.relative_to(arguments.folder)), found)
    print_agreement(f"all {counted}", total)
    same_count = abs(total.ours - total.peers) <= 0.01 * max(total.ours, total.peers, 1)
    return 0 if counted == arguments.photos and total.share >= 0.99 and same_count else 1


def spread(folder: Path) -> list[Path]:
    """List the files below a folder, one of each subfolder in turn."""
    groups: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        groups.setdefault(path.parent, []).append(path)
    turns = [(turn, path) for paths in groups.values() for turn, path in enumerate(p for p in paths if p.is_file())]
    return [path for _, path in sorted(turns)]


def settings(model: Model, photo: np.ndarray, arguments: argparse.Namespace) -> GenerateConfig:
    config = GenerateConfig(points_per_side=arguments.points_per_side, box_nms_threshold=arguments.nms)
    if arguments.thresholds == "card":
        return like_the_peer(config, model.card.predicted_iou_threshold, model.card.stability_threshold)
    everything = replace(like_the_peer(config, 0.0, 0.0), points_per_side=8, box_nms_threshold=1.01)
    every = generate_masks(model, photo, everything)
    return open_thresholds(every, config, iou_quantile=0.6, stability_quantile=0.5)


def print_agreement(photo: str, found: Agreement) -> None:
    fields = {"photo": photo, "masks": found.ours, "peer_masks": found.peers, "matched": found.matched}
    print(json.dumps(fields | {"share": round(found.share, 4)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
