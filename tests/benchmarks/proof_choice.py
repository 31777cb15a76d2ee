"""Proof of the choice of images: train on images that a ranking chose, and on as many random ones.

python tests/benchmarks/proof_choice.py DATA/bsds --images 12 --seeds 5 --by mix diversity

DATA/bsds is a folder of images with SA-1B-style JSON beside them. For each seed, a random part of the images is never
chosen; both arms choose from the rest, with the model that begins, train with the recipe of `gigamask retrain`, a
quarter of it scenes, and are measured on that part. Prints for each order the mean gain over random choice, as JSON
lines; its interval is a t interval over the seeds.
"""

import argparse
import copy
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.evaluation.clicked import evaluate
from engine.evaluation.config import EvaluationConfig
from engine.interactive.zoom import make_segmenter
from engine.labelled import LabelledImage, load_folder, read_pixels
from engine.model.weights import Model, load_model
from engine.selection.config import CHOOSE_BY, ChooseBy
from engine.selection.rank import ImageFeatures, describe_image, rank_images
from engine.training.peers import Peers
from engine.training.photos import PhotoSource
from engine.training.recipes import retraining_recipe, retraining_steps
from engine.training.scene_bank import BankConfig, SceneBank
from engine.training.seed import make_scenes
from engine.training.sources import MixedSource, Source
from engine.training.train import train
from stages.rounds.worth import NOISE
from tests.benchmarks.json_lines import print_line

SCENES = BankConfig(seed=31_000_000, first_chunks=6, chunks_per_step=0.0)
SCENE_SHARE = 0.25
FIGURES = ("miou_1_chosen", "miou_1_best3", "miou_3")


def main() -> None:
    """Parse, train each arm of each seed, compare."""
    parser = argparse.ArgumentParser(description="Train on chosen and on random images, and compare.")
    parser.add_argument("domain", type=Path, help="folder of one domain")
    parser.add_argument("--model", default="seed")
    parser.add_argument("--images", type=int, default=12, help="images that each arm chooses")
    parser.add_argument("--measured", type=int, default=24, help="images that are never chosen")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--by", nargs="+", choices=CHOOSE_BY[1:], default=list(CHOOSE_BY[1:]))
    parser.add_argument("--max-masks", type=int, default=10, help="most masks to measure per image")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.model)
    images = [image for image in load_folder(arguments.domain) if image.num_masks]
    features = [describe_image(model, read_pixels(image)) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        scenes = SceneBank(Path(folder), SCENES, partial(make_scenes, device="cpu"))
        reached = [run_seed(seed, model, images, features, scenes, arguments) for seed in range(arguments.seeds)]
    report(reached, arguments)


def run_seed(
    seed: int,
    model: Model,
    images: Sequence[LabelledImage],
    features: Sequence[ImageFeatures],
    scenes: SceneBank,
    arguments: argparse.Namespace,
) -> dict[str, list[float]]:
    """Train and measure each arm; return its figures by the name of the order."""
    shuffled = np.random.default_rng(seed).permutation(len(images)).tolist()
    measured, pool = shuffled[: arguments.measured], shuffled[arguments.measured :]
    reached = {}
    for order in ("random", *arguments.by):
        chosen = choose(order, pool, features, seed)[: arguments.images]
        trained = fine_tune(model, [images[number] for number in chosen], scenes)
        config = EvaluationConfig(clicks=(1, 3), max_masks_per_image=arguments.max_masks, seed=seed)
        figures = evaluate(make_segmenter(trained), [images[number] for number in measured], config).overall.figures
        reached[order] = [figures[name].value for name in FIGURES]
        print(f"seed {seed}, {order}: {reached[order]}", file=sys.stderr, flush=True)
    return reached


def choose(order: ChooseBy, pool: Sequence[int], features: Sequence[ImageFeatures], seed: int) -> list[int]:
    """Order the pool, which comes in a random order."""
    if order == "random":
        return list(pool)
    known_KC = np.zeros((0, len(features[0].embedding_C)), np.float32)
    rng = np.random.default_rng([seed, 3])
    return [pool[n] for n in rank_images(order, [features[n] for n in pool], known_KC, rng, noise=NOISE)]


def fine_tune(model: Model, images: Sequence[LabelledImage], scenes: SceneBank) -> Model:
    """Train a copy of the model on images and a share of scenes, as many steps as `gigamask retrain` would."""
    masks = sum(max(len(each) for each in image.masks_by_annotator.values()) for image in images)
    parts: list[tuple[Source, float]] = [(PhotoSource(images), 1 - SCENE_SHARE), (scenes, SCENE_SHARE)]
    sam = copy.deepcopy(model.sam)
    sam.to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(
            retraining_recipe(model.sam.config, retraining_steps(masks)),
            sam,
            MixedSource(parts),
            Path(folder),
            peers=Peers(device="cpu"),
        )
    return dataclasses.replace(model, sam=trained, model_id="chosen")


def report(reached: Sequence[dict[str, list[float]]], arguments: argparse.Namespace) -> None:
    """Print one line for each order and figure."""
    for order in arguments.by:
        for number, name in enumerate(FIGURES):
            gains = np.array([each[order][number] - each["random"][number] for each in reached])
            half = (
                student.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else None
            )
            mean = float(gains.mean())
            print_line(
                "choice",
                f"{arguments.domain.name} {name}, {order} over random",
                mean,
                "IoU",
                interval=None if half is None else [round(mean - half, 4), round(mean + half, 4)],
                random=round(float(np.mean([each["random"][number] for each in reached])), 4),
                images=arguments.images,
                seeds=arguments.seeds,
            )


def half_interval(values: np.ndarray) -> float | None:
    """Compute half the width of the 95 % interval of the mean; None for a single value."""
    if len(values) < 2:
        return None
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


if __name__ == "__main__":
    main()
