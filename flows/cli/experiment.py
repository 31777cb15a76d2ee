"""The commands below `gigamask experiment`: section 7 of "Segment Anything", beside its published figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.checks import find_model
from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri
from flows.progress import log

if TYPE_CHECKING:
    from engine.evaluation.config import EvaluationConfig

Data = Annotated[
    list[Path],
    typer.Option(
        "--data", help="Folder of images with SA-1B-style JSON, COCO or LVIS JSON, or benchmark folder. Repeatable."
    ),
]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder of the COCO files' images.", show_default="each file's own")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Model name, weights file, promoted, a dataset's version, or felzenszwalb. Repeatable.",
        show_default="seed",
    ),
]
ImageIds = Annotated[
    str | None,
    typer.Option("--image-ids", help="all, even or odd; by custom odd ids evaluate.", show_default="all"),
]
MaxImages = Annotated[
    int | None, typer.Option("--max-images", help="Most images of a dataset, chosen at random.", show_default="all")
]
MaxMasks = Annotated[
    int | None, typer.Option("--max-masks", help="Most masks of an image, chosen at random.", show_default="all")
]


def experiment_points(
    data: Data,
    images: Images = None,
    model: Models = None,
    dataset: DatasetUri = DEFAULT_DATASET,
    points: Annotated[str, typer.Option(help="Numbers of points to report the mean IoU after.")] = "1,2,3,5,9",
    image_ids: ImageIds = None,
    max_images: MaxImages = None,
    max_masks: MaxMasks = None,
    as_json: AsJson = False,
) -> None:
    """Point to mask (section 7.1): mean IoU of each dataset and their mean, also with the best of three masks.

    The first point is the mask's deepest pixel, each further one lies in the larger error. Intervals are 95 %.
    """
    numbers = tuple(number.strip() for number in points.split(","))
    settings = _settings(clicks=numbers, image_ids=image_ids, max_images=max_images, max_masks=max_masks)
    _prompted("points", data, images, model, dataset, settings, as_json)


def experiment_boxes(
    data: Data,
    images: Images = None,
    model: Models = None,
    dataset: DatasetUri = DEFAULT_DATASET,
    image_ids: ImageIds = None,
    max_images: MaxImages = None,
    max_masks: MaxMasks = None,
    as_json: AsJson = False,
) -> None:
    """Box to mask (section 7.4): mean IoU of the mask prompted by each ground truth box, of each dataset and overall.

    Each box is prompted once, then once more with the predicted mask: the paper's refinement. The paper prompts with
    the boxes of a detector and reports mask AP; ground truth boxes need no detector.
    """
    settings = _settings(boxes=True, image_ids=image_ids, max_images=max_images, max_masks=max_masks)
    _prompted("boxes", data, images, model, dataset, settings, as_json)


def experiment_edges(
    data: Data,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Model name, weights file, promoted, a dataset's version, gradient or people. Repeatable.",
            show_default="seed and gradient",
        ),
    ] = None,
    dataset: DatasetUri = DEFAULT_DATASET,
    thresholds: Annotated[
        int, typer.Option(help="Thresholds of the edge map; the benchmark has 99.", min=1, max=99)
    ] = 99,
    image_ids: ImageIds = None,
    max_images: MaxImages = None,
    as_json: AsJson = False,
) -> None:
    """Edges (section 7.2): ODS, OIS, AP and R50 of edge maps, against the boundaries of people's masks.

    By the benchmark of BSDS500, with an exact matching of pixels. Each person's masks must divide the image.
    gradient is a classical baseline that learns nothing; people compares each person with the others.
    """
    settings = _settings(image_ids=image_ids, max_images=max_images)
    names = _begin("edges", data, None, model or ["seed", "gradient"], dataset)
    from flows.evaluation.tables import to_markdown
    from flows.experiments.datasets import open_datasets
    from flows.experiments.edges import edges_json, edges_table, run_edges

    results = run_edges(names, open_datasets(data), settings, thresholds)
    if as_json:
        print(json.dumps([edges_json(result) for result in results]))
    else:
        print(to_markdown(edges_table(results)))


def experiment_proposals(
    data: Data,
    images: Images = None,
    model: Models = None,
    dataset: DatasetUri = DEFAULT_DATASET,
    points_per_side: Annotated[
        int, typer.Option(help="Points along each side of the grid; the paper has 64.", min=1, max=256)
    ] = 64,
    image_ids: ImageIds = None,
    max_images: MaxImages = None,
    max_masks: MaxMasks = None,
    as_json: AsJson = False,
) -> None:
    """Object proposals (section 7.3): mask AR@1000 by size, without categories, by COCO's rules.

    With --max-masks, masks that are not drawn do not compete.
    One grid of points, box NMS at .9 and no filter; masks rank by the mean of predicted IoU and stability.
    """
    settings = _settings(image_ids=image_ids, max_images=max_images, max_masks=max_masks)
    names = _begin("proposals", data, images, model, dataset)
    from flows.evaluation.tables import to_markdown
    from flows.experiments.datasets import open_datasets
    from flows.experiments.proposals import proposals_json, proposals_table, run_proposals

    results = run_proposals(names, open_datasets(data, images), settings, points_per_side)
    if as_json:
        print(json.dumps([proposals_json(result) for result in results]))
    else:
        print(to_markdown(proposals_table(results)))


def _prompted(
    experiment: Literal["points", "boxes"],
    data: list[Path],
    images: Path | None,
    model: list[str] | None,
    dataset: str,
    settings: EvaluationConfig,
    as_json: bool,
) -> None:
    names = _begin(experiment, data, images, model, dataset)
    from flows.evaluation.tables import to_markdown
    from flows.experiments.datasets import open_datasets
    from flows.experiments.prompted import prompted_table, run_prompted

    results = run_prompted(experiment, names, open_datasets(data, images), settings)
    if as_json:
        print(json.dumps([result.to_json() for result in results]))
    else:
        print(to_markdown(prompted_table(results)))


def _settings(
    *, image_ids: str | None, max_images: int | None, max_masks: int | None = None, **options: object
) -> EvaluationConfig:
    """Check the settings before anything heavy is imported."""
    from flows.config.evaluate import load_evaluate_config

    limits = {"max_images_per_domain": max_images, "max_masks_per_image": max_masks}
    return load_evaluate_config(evaluate={"image_ids": image_ids, **limits, **options}).evaluate


def _begin(experiment: str, data: list[Path], images: Path | None, model: list[str] | None, dataset: str) -> list[str]:
    """Print the first line, check the places of the data, and find the models.

    Raises:
        ValueError: A place or a model does not exist.
    """
    names = list(dict.fromkeys(model or ["seed"]))
    log(f"experiment {experiment}: {', '.join(names)} on {', '.join(map(str, data))}")
    for place in data:
        if not place.is_dir() and not (place.suffix.lower() == ".json" and place.is_file()):
            raise ValueError(f"{place}: no such folder; expected one with images and their JSON files, or a COCO JSON")
    if images is not None and (not images.is_dir() or all(place.is_dir() for place in data)):
        raise ValueError(f"--images {images}: expected the folder of the images of a COCO JSON, which --data names")
    not_models = ("gradient", "people") if experiment == "edges" else ("felzenszwalb",)
    return [name if name in not_models else find_model(name, dataset) for name in names]
