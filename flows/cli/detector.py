"""The commands `gigamask train-detector` and `evaluate-detector`: the generic detector that prefills images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import check_detector, check_model, check_training
from flows.cli.options import AsJson, Device
from flows.progress import log
from storage.home import cache_folder

if TYPE_CHECKING:
    from engine.model.weights import Model
    from storage.dataset import Dataset

DetectorModel = Annotated[
    str,
    typer.Option("--model", help="SAM whose embeddings the detector reads: a name, a weights file, or a dataset's id."),
]


def train_detector(
    snapshot: Annotated[
        str | None, typer.Option(help="Snapshot whose masks to train on.", show_default="procedural scenes alone")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of the snapshot, in which the detector is stored.", show_default="none")
    ] = None,
    photos: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of labelled images; those with even ids train or calibrate. Repeatable."),
    ] = None,
    model: DetectorModel = "seed",
    name: Annotated[str, typer.Option(help="Name of the detector.")] = "detector",
    windows: Annotated[int, typer.Option(help="Training windows, each encoded once.", min=8)] = 3000,
    passes: Annotated[int, typer.Option(help="Passes over the windows.", min=1)] = 4,
    scene_fraction: Annotated[
        float,
        typer.Option(help="Fraction of windows cut from procedural scenes.", min=0, max=1),
    ] = 0.5,
    held_out_every: Annotated[int, typer.Option(help="Number of images of which one is held out.", min=2)] = 5,
    device: Device = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of scenes, windows and weights.", show_default="~/.cache/gigamask/detector"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the generic detector on a snapshot's masks, on labelled photos, or on procedural scenes alone.

    With a dataset, it is stored in models/<detector_id>/ there; else its weights stay in the work folder.
    """
    if (snapshot is None) != (dataset is None):
        raise typer.BadParameter("--snapshot and --dataset belong together: give both, or neither")
    if snapshot is not None and photos:
        raise typer.BadParameter("got --snapshot and --photos: a detector trains on one of them")
    log(f"train-detector: {name} for {model}, on {snapshot or ', '.join(map(str, photos or ())) or 'scenes'}")
    if dataset is not None and snapshot is not None:
        check_training(dataset, snapshot, model)
    else:
        check_model(model)

    # Train
    from engine.detector.recipe import DetectorDataConfig
    from engine.detector.train import DetectorTraining
    from engine.device import best_device
    from engine.training.peers import check_device
    from flows.cli.output import print_result
    from stages.semi_automatic.train_detector import train_detector_on_photos, train_detector_on_snapshot
    from storage.dataset import Dataset

    on = device or best_device()
    check_device(on, 1)
    folder = (work or cache_folder("detector")).absolute()
    training = DetectorTraining(windows=windows, passes=passes)
    opened = None if dataset is None else Dataset.open(dataset)
    sam = load_sam(model, opened, folder)
    mix = DetectorDataConfig(scene_fraction=scene_fraction, held_out_every=held_out_every)
    if opened is not None and snapshot is not None:
        trained = train_detector_on_snapshot(
            opened, snapshot, sam, work_folder=folder, name=name, training=training, data=mix, device=on, log=log
        )
    else:
        trained = train_detector_on_photos(
            photos or (), sam, work_folder=folder, name=name, training=training, data=mix, device=on, log=log
        )
    print_result(trained, as_json)


def evaluate_detector(
    data: Annotated[Path, typer.Option(help="Folder of images with SA-1B-style JSON beside them.")],
    detector: Annotated[
        str, typer.Option(help="seed-detector, a weights file, or an id in the dataset.")
    ] = "seed-detector",
    model: DetectorModel = "seed",
    dataset: Annotated[
        str | None, typer.Option(help="Dataset whose model versions can be named.", show_default="none")
    ] = None,
    beside: Annotated[str, typer.Option(help="felzenszwalb or none.")] = "felzenszwalb",
    image_ids: Annotated[str, typer.Option(help="all, even or odd; by custom odd ids evaluate.")] = "all",
    max_images: Annotated[
        int | None, typer.Option(help="Most images of a domain, chosen at random.", show_default="all")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a detector: recall of the ground truth's boxes at IoU .5 by box budget, beside Felzenszwalb's boxes."""
    if beside not in ("felzenszwalb", "none"):
        raise typer.BadParameter(f"--beside {beside}: expected felzenszwalb or none")
    log(f"evaluate-detector: {detector} on {data}")
    if not data.is_dir():
        raise ValueError(f"{data}: no such folder; expected one with images and their JSON files")
    check_detector(detector, dataset)
    from engine.evaluation.config import EvaluationConfig

    settings = EvaluationConfig(image_ids=image_ids, max_images_per_domain=max_images)  # type: ignore[arg-type]

    # Measure
    from flows.evaluation.boxes import compare_boxes, recall_table
    from stages.semi_automatic.train_detector import find_dataset_detector
    from storage.dataset import Dataset

    opened = None if dataset is None else Dataset.open(dataset)
    folder = cache_folder("detector")
    sam = load_sam(model, opened, folder)
    compared = compare_boxes(
        sam, find_dataset_detector(detector, sam, opened, folder), data, settings, beside=beside == "felzenszwalb"
    )
    if as_json:
        print(json.dumps(compared))
    else:
        print(recall_table(compared))


def load_sam(name: str, dataset: Dataset | None, folder: Path) -> Model:
    """Load a SAM by name, by path, or by its id in a dataset.

    Raises:
        ValueError: There is no such model.
    """
    from engine.model.weights import load_model
    from stages.training.job import load_parent

    return load_model(name) if dataset is None else load_parent(dataset, name, folder)
