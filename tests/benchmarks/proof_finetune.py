"""Proof of retraining: train a model on one domain's images of even image_id, evaluate it on those of odd image_id.

python tests/benchmarks/proof_finetune.py DATA/nuclei --steps 150

DATA/nuclei is a folder of images with SA-1B-style JSON beside them. The recipe is that of `gigamask retrain`, a quarter
of the training images are scenes. Beside it trains a control: as long, on scenes alone, calibrated on the same images.
Prints the figures before and after, and the mean differences per mask, to the model before and to the control, with
95 % intervals over images, as JSON lines.
"""

import argparse
import copy
import dataclasses
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.device import best_device
from engine.evaluation.clicked import Evaluation, evaluate_source
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.scores import paired_difference
from engine.evaluation.source import FolderSource
from engine.interactive.zoom import make_segmenter
from engine.labelled import load_folder
from engine.model.weights import Model, load_model
from engine.training.calibrate import CalibrationConfig, calibrate
from engine.training.peers import Peers
from engine.training.photos import PhotoSource
from engine.training.progress import StepLines
from engine.training.recipes import retraining_recipe
from engine.training.scene_bank import BankConfig, SceneBank
from engine.training.seed import make_scenes
from engine.training.sources import MixedSource, Source
from engine.training.train import train
from tests.benchmarks.json_lines import print_line

SCENES = BankConfig(seed=31_000_000, first_chunks=6, chunks_per_step=0.0)
FIGURES = ("miou_1_chosen", "miou_1_best3", "miou_3")


def main() -> None:
    """Parse, train, compare."""
    parser = argparse.ArgumentParser(description="Fine-tune on a domain's even images and evaluate on its odd ones.")
    parser.add_argument("domain", type=Path, help="folder of one domain")
    parser.add_argument("--model", default="seed")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, help="learning rate; default: the recipe's")
    parser.add_argument("--scene-share", type=float, default=0.25)
    parser.add_argument("--scenes", type=Path, help="folder of saved scenes; default: new scenes")
    parser.add_argument("--max-masks", type=int, help="most masks to evaluate per image")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=best_device())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = load_model(arguments.model, device=arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        control, _, _ = fine_tuned(before, arguments, Path(folder) / "control", 1.0)
        after, seconds, cpu_seconds = fine_tuned(before, arguments, Path(folder) / "after", arguments.scene_share)
    odd = EvaluationConfig(clicks=(1, 3), image_ids="odd", max_masks_per_image=arguments.max_masks)
    held_out = FolderSource(folder=arguments.domain)
    judged = [evaluate_source(make_segmenter(model), held_out, odd) for model in (before, control, after)]
    report(judged, arguments, seconds, cpu_seconds)


def fine_tuned(before: Model, arguments: argparse.Namespace, folder: Path, share: float) -> tuple[Model, float, float]:
    """Train the model on images of even image_id and a share of scenes, and calibrate it.

    Returns:
        The model, and the wall and CPU seconds that it took.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    even = [image for image in load_folder(arguments.domain) if image.image_id % 2 == 0 and image.num_masks]
    scenes = SceneBank(arguments.scenes or folder / "scenes", SCENES, partial(make_scenes, device=arguments.device))
    parts: list[tuple[Source, float]] = [(PhotoSource(even), 1 - share), (scenes, share)]
    source = MixedSource([(each, weight) for each, weight in parts if weight > 0])
    recipe = retraining_recipe(before.sam.config, arguments.steps)
    config = dataclasses.replace(
        recipe, batch_size=arguments.batch, learning_rate=arguments.rate or recipe.learning_rate
    )
    sam = copy.deepcopy(before.sam)
    sam.to(memory_format=torch.channels_last)
    lines = StepLines(config, partial(print, file=sys.stderr, flush=True))
    trained = train(config, sam, source, folder, peers=Peers(device=arguments.device), on_step=lines)
    calibrate(trained, config.batch, scenes, even, CalibrationConfig(images_per_source=16, prompts=8))
    seconds = time.monotonic() - began
    return dataclasses.replace(before, sam=trained, model_id="fine-tuned"), seconds, time.process_time() - cpu_began


def report(judged: list[Evaluation], arguments: argparse.Namespace, seconds: float, cpu_seconds: float) -> None:
    """Print one line per figure."""
    before, control, after = judged
    for name in FIGURES:
        change = paired_difference(before.scores, after.scores, name, seed=0)
        gain = paired_difference(control.scores, after.scores, name, seed=0)
        print_line(
            "finetune",
            f"{arguments.domain.name} {name}, odd image_ids",
            after.overall.figures[name].value,
            "IoU",
            before=round(before.overall.figures[name].value, 4),
            change=round(change.value, 4),
            interval=[round(end, 4) for end in change.interval] if change.interval else None,
            control=round(control.overall.figures[name].value, 4),
            gain_over_control=round(gain.value, 4),
            gain_interval=[round(end, 4) for end in gain.interval] if gain.interval else None,
            images=after.overall.images,
            masks=after.overall.masks,
            steps=arguments.steps,
            training_images=arguments.steps * arguments.batch,
            seconds=round(seconds),
            cpu_seconds=round(cpu_seconds),
        )


if __name__ == "__main__":
    main()
