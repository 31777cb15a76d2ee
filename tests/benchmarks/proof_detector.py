"""Proof of the detector, the prefill and the verifier on photographs that none of them was trained on.

python tests/benchmarks/proof_detector.py DATA

DATA holds <domain>/<stem>.jpg beside SA-1B-style JSON. Of most domains, the images with odd ids are measured; the
domains of --all (default: bsds) are measured whole. Prints JSON lines, for each group of photographs:

- recall of the ground truth's boxes at IoU .5 with 10, 30 and 100 boxes an image, beside Felzenszwalb's boxes
- the fraction of the boxes at and above the detector's threshold that have an IoU of at least .5 with a box of the
  ground truth, and the calibration error of all scores
- the fraction of prefilled masks that a simulated reviewer keeps, who keeps a mask whose IoU with some mask of the
  ground truth reaches .75, .85 or .9; also of the masks of the automatic generator
- the AUROC of the verifier on held-out photographs beside predicted IoU alone, and the gate's decision

Intervals are 95 %, by bootstrap over photographs.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.automatic.config import GenerateConfig
from engine.detector.calibrate import judge_boxes
from engine.detector.weights import Detector, load_detector
from engine.evaluation.boxes import BUDGETS, BoxesOfMasks, DetectorBoxes, difference, evaluate_boxes
from engine.evaluation.classical import FelzenszwalbSegmenter
from engine.evaluation.scores import Estimate, mean_over_masks
from engine.labelled import LabelledImage, load_folder, read_pixels
from engine.model.weights import Model, load_model
from engine.verifier.verifier import fit_verifier
from stages.semi_automatic.prefill import Prefill, PrefillConfig, prefill_automatically, prefill_image
from stages.semi_automatic.verdicts import best_iou, collect_verdicts
from tests.benchmarks.json_lines import print_line

KEPT_FROM = (0.75, 0.85, 0.9)
"""IoU with the ground truth from which the simulated reviewer keeps a mask."""
PARTS = ("recall", "boxes", "prefill", "automatic", "verifier")
SURER = PrefillConfig(min_predicted_iou=0.8)
"""Prefill with a higher threshold than the model card's, for the trade of fewer masks for surer ones."""
GRID = GenerateConfig(points_per_side=16)
"""Settings of the automatic generator, as in the seed's published figures."""


@dataclass(frozen=True)
class OfPhotograph:
    """One prefilled mask: its photograph, for the bootstrap."""

    image: str


def main() -> None:
    """Parse, measure each group of photographs, print."""
    parser = argparse.ArgumentParser(description="Measure detector, prefill and verifier on photographs of DATA.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="seed")
    parser.add_argument("--detector", default="seed-detector")
    parser.add_argument("--all", nargs="*", default=["bsds"], help="domains measured whole; of the others, odd ids")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--max-images", type=int, default=None, help="most photographs of a group")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    model = load_model(arguments.model)
    detector = load_detector(arguments.detector, model)
    images = load_folder(arguments.data)
    groups = {f"all of {name}": [image for image in images if image.domain == name] for name in arguments.all}
    groups["odd ids"] = [image for image in images if image.domain not in arguments.all and image.image_id % 2]
    for name, members in groups.items():
        chosen = members[: arguments.max_images]
        if not chosen:
            continue  # DATA has no such photographs
        if "recall" in arguments.parts:
            measure_recall(name, model, detector, chosen)
        if "boxes" in arguments.parts:
            measure_boxes(name, model, detector, chosen)
        ways = {
            "detector": partial(prefill_image, model, detector),
            "detector, predicted IoU > .8": partial(prefill_image, model, detector, config=SURER),
        }
        if "prefill" in arguments.parts:
            for way, prefill in ways.items():
                measure_prefill(name, way, chosen, prefill)
        if "automatic" in arguments.parts:
            measure_prefill(name, "automatic", chosen, partial(prefill_automatically, model, generate=GRID))
        if "verifier" in arguments.parts:
            measure_verifier(name, model, detector, chosen)


def measure_recall(group: str, model: Model, detector: Detector, images: Sequence[LabelledImage]) -> None:
    """Print the recall of the detector's boxes beside Felzenszwalb's, for each budget."""
    ours = evaluate_boxes(DetectorBoxes(detector=detector, model=model), images)
    theirs = evaluate_boxes(BoxesOfMasks(proposer=FelzenszwalbSegmenter()), images)
    domains = list(dict.fromkeys(score.domain for score in ours.scores))
    for domain in [None, *domains] if len(domains) > 1 else [None]:
        members = ours.of_domain(domain)
        for budget in BUDGETS:
            our, their = ours.recall(budget, domain=domain), theirs.recall(budget, domain=domain)
            change = difference(theirs, ours, budget, domain=domain)
            print_figure(
                f"box_recall_50 of {budget} boxes",
                domain or group,
                our,
                felzenszwalb=round(their.value, 4),
                felzenszwalb_interval=edges(their),
                difference=round(change.value, 4),
                difference_interval=edges(change),
                images=len({score.image for score in members}),
                masks=len(members),
            )
    for each in (ours, theirs):
        seconds = each.seconds / len({score.image for score in each.scores})
        print_line("proof_detector", f"seconds an image, {each.name}", seconds, "s", group=group)


def measure_boxes(group: str, model: Model, detector: Detector, images: Sequence[LabelledImage]) -> None:
    """Print how many of the boxes that would prefill are good, and how far scores are from probabilities."""
    verdicts = judge_boxes(model, detector, images)
    sure = verdicts.scores_N >= detector.card.score_threshold
    print_line(
        "proof_detector",
        "good boxes at and above the threshold",
        float(verdicts.good_N[sure].mean()) if sure.any() else float("nan"),
        "fraction",
        group=group,
        threshold=detector.card.score_threshold,
        boxes=int(sure.sum()),
        expected_calibration_error=round(verdicts.expected_error, 4),
        images=verdicts.images,
    )


def measure_prefill(
    group: str, way: str, images: Sequence[LabelledImage], prefill: Callable[[np.ndarray], Prefill]
) -> None:
    """Print the fraction of prefilled masks that a simulated reviewer keeps, for the group and for its domains."""
    iou: list[float] = []
    members: list[OfPhotograph] = []
    began = time.perf_counter()
    for image in images:
        masks = prefill(read_pixels(image)).masks
        if masks:
            iou += best_iou(masks, image).tolist()
            members += [OfPhotograph(f"{image.domain}/{image.stem}")] * len(masks)
    seconds = time.perf_counter() - began
    domains = sorted({image.domain for image in images})
    for name in (group, *domains) if len(domains) > 1 else (group,):
        own = [number for number, member in enumerate(members) if name in (group, member.image.partition("/")[0])]
        count = sum(name in (group, image.domain) for image in images)
        for limit in KEPT_FROM if own else ():
            kept = np.array([iou[number] >= limit for number in own], dtype=np.float64)
            print_figure(
                f"prefilled masks kept at IoU {limit}",
                name,
                mean_over_masks([members[number] for number in own], kept, seed=0),
                way=way,
                kept=int(kept.sum()),
                masks=len(own),
                masks_an_image=round(len(own) / count, 1),
                images=count,
                images_filled=len({members[number].image for number in own}),
                seconds_an_image=round(seconds / len(images), 2),
            )


def measure_verifier(group: str, model: Model, detector: Detector, images: Sequence[LabelledImage]) -> None:
    """Print the AUROC of the verifier on held-out photographs beside predicted IoU alone, and the gate's decision."""
    fitted = fit_verifier(collect_verdicts(model, detector, images))
    metrics = fitted.metrics
    print_figure(
        "verifier AUROC on held-out photographs",
        group,
        metrics.auroc,
        predicted_iou_alone=round(metrics.auroc_predicted_iou.value, 4),
        predicted_iou_alone_interval=edges(metrics.auroc_predicted_iou),
        difference=round(metrics.difference.value, 4),
        difference_interval=edges(metrics.difference),
        brier=round(metrics.brier, 4),
        brier_constant=round(metrics.brier_constant, 4),
        expected_calibration_error=round(metrics.expected_calibration_error, 4),
        images=metrics.photographs,
        masks=metrics.masks,
        good=metrics.good,
        gate=fitted.gate.reason,
    )


def print_figure(metric: str, group: str, figure: Estimate, **facts: object) -> None:
    """Print one figure with its interval as a JSON line."""
    print_line("proof_detector", metric, figure.value, "fraction", group=group, interval=edges(figure), **facts)


def edges(figure: Estimate) -> list[float] | None:
    """Round the interval of a figure."""
    return [round(edge, 4) for edge in figure.interval] if figure.interval else None


if __name__ == "__main__":
    main()
