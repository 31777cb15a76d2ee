"""The command `gigamask verify-model`: it trains the mask verifier and decides whether it may accept masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import check_dataset, check_detector
from flows.cli.options import AsJson
from flows.progress import log
from storage.home import cache_folder

if TYPE_CHECKING:
    from engine.model.weights import Model
    from engine.verifier.verifier import Verdicts
    from storage.dataset import Dataset


def verify_model(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of labelled images to take verdicts from.", show_default="people's reviews"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Dataset of the reviews, in which the verifier is stored.", show_default="none"),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(help="Workspace of the reviews: a file or URL.", show_default="DATASET/workspace.sqlite"),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="SAM that judges the masks: a name, a weights file, or a dataset's id.")
    ] = "seed",
    detector: Annotated[
        str, typer.Option(help="Detector that proposes the masks of --data: a name, a weights file, or an id.")
    ] = "seed-detector",
    min_iou: Annotated[
        float, typer.Option(help="IoU with the ground truth from which a mask of --data is good.", min=0.01, max=1)
    ] = 0.75,
    image_ids: Annotated[
        str, typer.Option(help="Images of --data: all, even or odd; by custom odd ids evaluate.")
    ] = "all",
    name: Annotated[str, typer.Option(help="Name of the verifier.")] = "verifier",
    work: Annotated[
        Path | None, typer.Option(help="Folder of the weights.", show_default="~/.cache/gigamask/verifier")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the mask verifier on verdicts, measure it on held-out photographs, and say what its gate decided.

    The verifier orders review queues. It accepts masks by itself only if it beats predicted IoU alone beyond chance.
    """
    if data is None and dataset is None:
        raise typer.BadParameter("got neither --data nor --dataset: verdicts come from labelled images or from reviews")
    if image_ids not in ("all", "even", "odd"):
        raise typer.BadParameter(f"--image-ids {image_ids}: expected all, even or odd")
    log(f"verify-model: {name} for {model}, on {data or dataset}")
    if data is not None and not data.is_dir():
        raise ValueError(f"{data}: no such folder; expected one with images and their JSON files")
    if data is not None:
        check_detector(detector, dataset)
    if dataset is not None:
        check_dataset(dataset)

    # Collect verdicts
    from flows.cli.detector import load_sam
    from flows.cli.output import print_result
    from stages.semi_automatic.verify import train_verifier
    from storage.dataset import Dataset

    folder = (work or cache_folder("verifier")).absolute()
    opened = None if dataset is None else Dataset.open(dataset)
    sam = load_sam(model, opened, folder)
    if data is not None:
        verdicts = _of_labelled(data, sam, detector, opened, folder, min_iou, image_ids)
    else:
        assert opened is not None, "without --data there is a dataset"
        verdicts = _of_reviews(opened, sam, workspace)
    log(f"{len(verdicts.good_N)} verdicts, {int(verdicts.good_N.sum())} good")

    # Fit, measure, decide
    described = {"verdicts": "labelled images" if data else "reviews", "min_iou": min_iou if data else None}
    trained = train_verifier(verdicts, sam, folder, name=name, described=described, dataset=opened)
    print_result(trained, as_json)
    log(f"gate {trained.gate}")


def _of_labelled(
    data: Path, sam: Model, detector: str, dataset: Dataset | None, folder: Path, min_iou: float, image_ids: str
) -> Verdicts:
    from engine.labelled import load_folder
    from stages.semi_automatic.train_detector import find_dataset_detector
    from stages.semi_automatic.verdicts import VerdictConfig, collect_verdicts

    images = [image for image in load_folder(data) if image_ids in ("all", ("even", "odd")[image.image_id % 2])]
    proposes = find_dataset_detector(detector, sam, dataset, folder)
    return collect_verdicts(sam, proposes, images, VerdictConfig(min_iou=min_iou), on_progress=_log_progress)


def _of_reviews(dataset: Dataset, sam: Model, workspace: str | None) -> Verdicts:
    from stages.semi_automatic.verdicts import collect_reviews
    from storage.workspace.workspace import Workspace

    place = workspace or f"{dataset.uri}/workspace.sqlite"
    if "://" not in place and not Path(place).is_file():
        raise ValueError(f"{place}: no such workspace; expected the file or URL of one with reviews")
    with Workspace.open(place) as reviews:
        return collect_reviews(sam, dataset, reviews, on_progress=_log_progress)


def _log_progress(done: int, total: int) -> None:
    if done % 10 == 0 or done == total:
        log(f"{done} of {total} images")
