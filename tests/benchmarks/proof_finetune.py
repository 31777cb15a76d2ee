"""Proof of fine-tuning: train a model on one domain's images of even image_id, evaluate it on those of odd image_id.

python tests/benchmarks/proof_finetune.py DATA/nuclei --steps 150

DATA/nuclei is a folder of images with SA-1B-style JSON beside them. Prints the figures before and after, and the mean
difference per mask with its 95 % interval over images, as JSON lines.
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
from engine.interactive.segment import SamSegmenter
from engine.labelled import load_folder
from engine.model.weights import Model, load_model
from engine.training.calibrate import CalibrationConfig, calibrate
from engine.training.peers import Peers
from engine.training.photos import PhotoSource
from engine.training.progress import StepLines
from engine.training.recipes import seed_recipe
from engine.training.scene_bank import BankConfig, SceneBank
from engine.training.seed import make_scenes
from engine.training.sources import MixedSource
from engine.training.train import train
from tests.benchmarks.json_lines import print_line

SCENES = BankConfig(seed=31_000_000, first_chunks=6, chunks_per_step=0.0)
FIGURES = ("miou_1_chosen", "miou_1_best3")


def main() -> None:
    """Parse, train, compare."""
    parser = argparse.ArgumentParser(description="Fine-tune on a domain's even images and evaluate on its odd ones.")
    parser.add_argument("domain", type=Path, help="folder of one domain")
    parser.add_argument("--model", default="seed")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--scene-share", type=float, default=0.25)
    parser.add_argument("--scenes", type=Path, help="folder of saved scenes; default: new scenes")
    parser.add_argument("--max-masks", type=int, help="most masks to evaluate per image")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=best_device())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = load_model(arguments.model, device=arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        after, seconds, cpu_seconds = fine_tuned(before, arguments, Path(folder))
    odd = EvaluationConfig(image_ids="odd", max_masks_per_image=arguments.max_masks)
    held_out = FolderSource(folder=arguments.domain)
    judged = [evaluate_source(SamSegmenter(model=model), held_out, odd) for model in (before, after)]
    report(judged, arguments, seconds, cpu_seconds)


def fine_tuned(before: Model, arguments: argparse.Namespace, folder: Path) -> tuple[Model, float, float]:
    """Train and calibrate the model on images of even image_id; returns it with wall and CPU seconds."""
    began, cpu_began = time.monotonic(), time.process_time()
    even = [image for image in load_folder(arguments.domain) if image.image_id % 2 == 0 and image.num_masks]
    scenes = SceneBank(arguments.scenes or folder / "scenes", SCENES, partial(make_scenes, device=arguments.device))
    share = arguments.scene_share
    source = MixedSource([(PhotoSource(even), 1 - share), (scenes, share)]) if share else PhotoSource(even)
    config = dataclasses.replace(
        seed_recipe(before.sam.config, arguments.steps), batch_size=arguments.batch, learning_rate=arguments.rate
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
    before, after = judged
    for name in FIGURES:
        change = paired_difference(before.scores, after.scores, name, seed=0)
        print_line(
            "finetune",
            f"{arguments.domain.name} {name}, odd image_ids",
            after.overall.figures[name].value,
            "IoU",
            before=round(before.overall.figures[name].value, 4),
            change=round(change.value, 4),
            interval=[round(end, 4) for end in change.interval] if change.interval else None,
            images=after.overall.images,
            masks=after.overall.masks,
            steps=arguments.steps,
            training_images=arguments.steps * arguments.batch,
            seconds=round(seconds),
            cpu_seconds=round(cpu_seconds),
        )


if __name__ == "__main__":
    main()
