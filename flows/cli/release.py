"""The command `gigamask release`: a snapshot as files in the form of SA-1B, and the check of such files."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import check_dataset
from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri
from flows.progress import log, print_phases


def release(
    out: Annotated[str, typer.Argument(help="Folder to write, or with --verify the release to check.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    snapshot: Annotated[
        str | None, typer.Option(help="Snapshot to release; `gigamask snapshot` makes one.", show_default="required")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check a release instead of writing one.")] = False,
    not_deidentified: Annotated[
        bool,
        typer.Option("--not-deidentified", help="Release images, too, that were not searched for faces and plates."),
    ] = False,
    plates_reviewed: Annotated[
        bool, typer.Option("--plates-reviewed", help="Say that people looked for licence plates in the images.")
    ] = False,
    allow_unlicensed: Annotated[
        bool, typer.Option("--allow-unlicensed", help="Release images without a licence, too.")
    ] = False,
    without_sources: Annotated[
        bool, typer.Option("--without-sources", help="Leave the names of the photos out.")
    ] = False,
    coco: Annotated[bool, typer.Option("--coco", help="Also write all masks as one COCO file.")] = False,
    holdout_every: Annotated[int, typer.Option(help="Hold out one image of about so many.", min=2)] = 5,
    images_per_tar: Annotated[
        int | None, typer.Option(help="Most images in one tar.", min=1, show_default="11186, as in SA-1B")
    ] = None,
    title: Annotated[str, typer.Option(help="Name of the release in its documents.")] = "Images and masks",
    creator: Annotated[str, typer.Option(help="Who makes it, for its documents.", show_default="nobody")] = "",
    url: Annotated[str, typer.Option(help="Address where it will be found.", show_default="none")] = "",
    contact: Annotated[
        str, typer.Option(help="Address for questions, and for images to be taken down.", show_default="none")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write the images and masks of a snapshot in the form of SA-1B, or check such files.

    The same snapshot and options give the same files. A release that was interrupted continues. Images that ingest did
    not search for faces and licence plates do not leave, unless you say so; the release says so, too.
    """
    if verify:
        _verify(Path(out), as_json)
        return
    log(f"release: snapshot {snapshot} of {dataset} to {out}")
    if "://" in out:
        raise ValueError(f"{out}: a release is written to a folder of this machine; copy it to its place afterwards")
    if snapshot is None:
        raise ValueError("--snapshot is missing: a release is of a snapshot; `gigamask snapshot` makes one")
    from stages.release.config import ReleaseConfig

    defaults = ReleaseConfig()
    config = ReleaseConfig(
        not_deidentified=not_deidentified,
        plates_reviewed=plates_reviewed,
        allow_unlicensed=allow_unlicensed,
        with_sources=not without_sources,
        with_coco=coco,
        holdout_every=holdout_every,
        images_per_tar=images_per_tar or defaults.images_per_tar,
        title=title,
        creator=creator,
        url=url,
        contact=contact,
    )
    check_dataset(dataset)
    from flows.cli.output import print_result
    from flows.release import release as release_flow

    result = release_flow(dataset, snapshot, out, config)
    print_result(result, as_json)
    lacking = [name for name, value in (("--creator", creator), ("--url", url), ("--contact", contact)) if not value]
    if lacking:
        log(f"the documents lack what others will look for; {', '.join(lacking)} in a new folder would give it")
    if not result.deidentified:
        log("faces and licence plates in these images were not blurred, or not in all; README.md says so")


def _verify(out: Path, as_json: bool) -> None:
    log(f"release: checking {out} ...")
    from flows.cli.output import print_result
    from stages.release.verification.verify import verify_release

    checked = verify_release(out, on_progress=print_phases("release"))
    print_result(checked, as_json)
    if checked.faults:
        raise typer.Exit(1)
