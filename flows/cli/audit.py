"""The command `gigamask audit`: how good masks are, by how much people change them."""

from typing import Annotated

import typer

from flows.cli.checks import check_dataset, workspace_place
from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri, WorkspacePlace
from flows.progress import log
from flows.words import place_options


def audit(
    dataset: DatasetUri = DEFAULT_DATASET,
    sample: Annotated[int, typer.Option("--sample", help="Number of images to draw.", min=1)] = 500,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.", min=0)] = 0,
    masks: Annotated[
        str, typer.Option("--masks", help="SQL condition on `masks` for the masks to audit.")
    ] = "stage = 'fully_automatic'",
    workspace: WorkspacePlace = None,
    as_json: AsJson = False,
) -> None:
    """Audit masks: annotators improve those of a random sample; report how many hardly changed.

    The first call draws the sample and opens a round. The same call later finds it again, and compares the masks before
    and after on the images that were answered. `gigamask round report` makes a page of it, and `round close` takes the
    improved masks into the dataset.
    """
    log(f"audit: {sample} images of {dataset}, seed {seed}, masks with {masks}")
    place = workspace_place(dataset, workspace)
    check_dataset(dataset)
    from flows.audit import audit as audit_flow
    from flows.cli.output import print_result
    from stages.rounds.audit import AuditRequest

    result = audit_flow(dataset, place, AuditRequest(sample=sample, seed=seed, masks=masks))
    print_result(result, as_json)
    if as_json:
        return
    here = place_options(dataset, workspace)
    if result.images_done < result.images and result.state == "open":
        log(f"{result.images - result.images_done} images wait; next: gigamask annotate {here}")
    elif result.state == "open":
        log(f"all images are done; next: gigamask round close {result.round_id} {here}")
