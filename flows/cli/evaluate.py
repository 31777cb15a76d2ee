"""The command `gigamask evaluate`: it measures models and writes tables on stdout and an HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import find_model
from flows.cli.options import DEFAULT_DATASET, AsJson, Assignments, ConfigFile, DatasetUri, Preset
from flows.progress import log

if TYPE_CHECKING:
    from flows.evaluation.compare import Result


def evaluate(
    data: Annotated[
        Path, typer.Option(help="Folder of images with SA-1B-style JSON beside them, or a COCO instances JSON.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of a COCO file's images.", show_default="the file's own")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model name, weights file, promoted, a dataset's version, or felzenszwalb. Repeatable.",
            show_default="seed",
        ),
    ] = None,
    dataset: DatasetUri = DEFAULT_DATASET,
    beside: Annotated[
        str | None,
        typer.Option(help="Model to compare with by paired differences, or none.", show_default="felzenszwalb"),
    ] = None,
    clicks: Annotated[
        str | None, typer.Option(help="Numbers of clicks to report the mean IoU after: 1,3,5.", show_default="1")
    ] = None,
    click_policy: Annotated[
        str | None,
        typer.Option(help="centre: a region's deepest point; jittered: near it, as by hand.", show_default="centre"),
    ] = None,
    noc: Annotated[bool, typer.Option("--noc", help="Also count clicks to IoU .85 and .90; slow.")] = False,
    boxes: Annotated[bool, typer.Option("--boxes", help="Also prompt with each mask's box.")] = False,
    automatic: Annotated[bool, typer.Option("--automatic", help="Also measure automatic masks.")] = False,
    preset: Preset = None,
    image_ids: Annotated[
        str | None,
        typer.Option(help="all, even or odd; by custom even ids train and odd ids evaluate.", show_default="all"),
    ] = None,
    max_images: Annotated[
        int | None, typer.Option(help="Most images of a domain, chosen at random.", show_default="all")
    ] = None,
    max_masks: Annotated[
        int | None, typer.Option(help="Most masks of an image, chosen at random.", show_default="all")
    ] = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    report: Annotated[Path | None, typer.Option(help="HTML page to write, with plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a model's masks with ground truth, beside a baseline; 95 % intervals by bootstrap over images.

    Each folder of images is a domain with figures of its own. Folders can be groups of people or places: a permutation
    test over images says whether a metric differs between them.
    """
    names = model or ["seed"]
    log(f"evaluate: {', '.join(names)} on {data}")
    from flows.config.evaluate import BASELINE, load_evaluate_config

    # Refuse wrong use before anything heavy is imported
    settings = load_evaluate_config(
        file=config,
        assignments=assignments,
        preset=preset,
        automatic=automatic or None,
        beside=beside,
        evaluate={
            "clicks": None if clicks is None else tuple(number.strip() for number in clicks.split(",")),
            "click_policy": click_policy,
            "noc": noc or None,
            "boxes": boxes or None,
            "image_ids": image_ids,
            "max_images_per_domain": max_images,
            "max_masks_per_image": max_masks,
        },
    )
    if not data.is_dir() and not (data.suffix.lower() == ".json" and data.is_file()):
        raise ValueError(f"{data}: no such folder; expected one with images and their JSON files, or a COCO JSON")
    if images is not None and (data.is_dir() or not images.is_dir()):
        raise ValueError(f"--images {images}: expected the folder of the images of a COCO JSON, which --data names")
    found = {name: find_model(name, dataset) for name in {*names, settings.beside} - {BASELINE, None} if name}
    names = [found.get(name, name) for name in names]
    settings = replace(settings, beside=found.get(settings.beside or "", settings.beside))

    # Measure
    from flows.evaluation.compare import evaluate_models, results_json

    results = evaluate_models(names, data, settings, images)

    # Write and print
    if report:
        from flows.evaluation.page import write_evaluation_report

        log(f"report: {write_evaluation_report(results, report, data=data)}")
    if as_json:
        print(json.dumps(results_json(results)))
        return
    _print_tables(results, with_automatic=settings.automatic)


def _print_tables(results: Sequence[Result], *, with_automatic: bool) -> None:
    """Print the metrics after clicks, the tests between domains where there are some, and those of automatic masks."""
    from flows.evaluation.tables import automatic_table, click_table, domain_test_table, to_markdown

    print(to_markdown(click_table(results)))
    tests = domain_test_table(results)
    if len(tests) > 1:
        print("\ndifference between domains, permutation test over images\n\n" + to_markdown(tests))
    if with_automatic:
        print("\nautomatic masks, at most as many beside each model\n\n" + to_markdown(automatic_table(results)))
