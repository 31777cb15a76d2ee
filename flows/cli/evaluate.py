"""`gigamask evaluate`: how good a model is, in figures on stdout and in a page to look at."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.progress import say

evaluate_app = typer.Typer()


@evaluate_app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of photographs with SA-1B-style JSON beside them.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model's name, a weights file, or felzenszwalb; may be repeated.", show_default="seed"),
    ] = None,
    beside: Annotated[
        str, typer.Option(help="What to measure beside it, with paired differences: a model, or none.")
    ] = "felzenszwalb",
    clicks: Annotated[str, typer.Option(help="Report the mean IoU after these numbers of clicks.")] = "1",
    click_policy: Annotated[
        str, typer.Option(help="centre: a region's deepest point; jittered: around it, as a hand would.")
    ] = "centre",
    noc: Annotated[bool, typer.Option("--noc", help="Also count clicks to IoU .85 and .90 (cap 20; slow).")] = False,
    boxes: Annotated[bool, typer.Option("--boxes", help="Also prompt with each mask's box.")] = False,
    automatic: Annotated[
        bool, typer.Option("--automatic", help="Also measure the masks made without a click, against people's.")
    ] = False,
    preset: Annotated[str, typer.Option(help="Of the automatic masks: grid or paper.")] = "grid",
    image_ids: Annotated[
        str, typer.Option(help="all, even or odd: by custom even ids train, odd ones evaluate.")
    ] = "all",
    max_images: Annotated[
        int | None, typer.Option(help="At most this many photographs a domain (seeded choice).")
    ] = None,
    max_masks: Annotated[int | None, typer.Option(help="At most this many masks an image (seeded choice).")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, e.g. generate.points_per_side=16.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the figures as an HTML page with plots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """A model's masks against people's, the classical baseline beside it; intervals by bootstrap over photographs."""
    names = model or ["seed"]
    say(f"evaluate: {', '.join(names)} on {data}")
    from flows.config import load_evaluate_settings
    from flows.evaluation.compare import evaluate_models, results_json
    from flows.evaluation.tables import automatic_table, click_table, to_markdown

    settings = load_evaluate_settings(
        assignments=assignments,
        preset=preset,
        automatic=automatic,
        beside=None if beside == "none" else beside,
        evaluate={
            "clicks": tuple(number.strip() for number in clicks.split(",")),
            "click_policy": click_policy,
            "noc": noc,
            "boxes": boxes,
            "image_ids": image_ids,
            "max_images_per_domain": max_images,
            "max_masks_per_image": max_masks,
        },
    )
    results = evaluate_models(names, data, settings)
    if report:
        from flows.evaluation.page import write_evaluation_report

        say(f"report: {write_evaluation_report(results, report, data=data)}")
    if as_json:
        print(json.dumps(results_json(results)))
        return
    print(to_markdown(click_table(results)))
    if automatic:
        print("\nautomatic masks, at most as many beside each model\n\n" + to_markdown(automatic_table(results)))
