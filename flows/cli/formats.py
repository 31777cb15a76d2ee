"""The commands `import` and `export`: labels of other tools into a dataset, and a snapshot into their formats."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.checks import check_dataset, check_dataset_place
from flows.cli.options import DEFAULT_DATASET, AsJson, Assignments, ConfigFile, DatasetUri
from flows.progress import Counts, log, reporter

if TYPE_CHECKING:
    from stages.formats.export import Writer
    from stages.formats.import_labels import ImportReport
    from stages.formats.labels import Labels
    from stages.ingest.config import IngestConfig
    from storage.dataset import Dataset

LINES = 20
"""Most annotations and photos that are named on stderr; --json names all."""

Form = Literal["coco", "sa1b", "cvat", "label-studio", "yolo"]
"""Formats, each of which is read and written."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Result of `gigamask import` for people."""

    photos: int
    new_images: int
    images: int
    masks: int
    new_masks: int
    there_already: int
    masks_left_out: Mapping[str, int]
    categories: Mapping[str, int]
    plans: tuple[str, ...]
    seconds: float


def import_(
    labels: Annotated[Path, typer.Argument(help="File or folder of labels.")],
    form: Annotated[Form, typer.Option("--format", help="Format of the labels.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    photos: Annotated[
        Path | None, typer.Option("--photos", help="Folder of the photos.", show_default="where the labels are")
    ] = None,
    license_given: Annotated[
        str, typer.Option("--license", help="Licence of photos that the labels name none for.", show_default="none")
    ] = "",
    with_crowds: Annotated[
        bool, typer.Option("--with-crowds", help="Take COCO's iscrowd annotations as masks, too.")
    ] = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Take the labels of another tool and their photos into a dataset, as masks of the stage `imported`.

    Given again, the command continues where it stopped and adds nothing twice. What cannot be taken is counted and
    named. Masks that the dataset holds already, pixel by pixel, are not stored again. Categories are counted, not kept.
    """
    log(f"import: {form} {labels} -> {dataset}")
    if not labels.exists():
        raise ValueError(f"{labels}: no such file or folder; expected labels of the format {form}")
    if photos is not None and not photos.is_dir():
        raise ValueError(f"--photos {photos}: no such folder; expected the folder of the photos")
    if with_crowds and form != "coco":
        raise ValueError(f"--with-crowds belongs to --format coco; got --format {form}")
    from flows.config.run import load_run_config
    from stages.ingest.config import IngestConfig

    options = {"license": license_given or None}
    ingest = load_run_config(file=config, assignments=assignments, dataset=dataset, ingest=options).ingest
    if ingest.shortest_side_px != IngestConfig.shortest_side_px:
        raise ValueError(
            "ingest.shortest_side_px: an import keeps the size of photos, which their masks have; leave it out"
        )
    check_dataset_place(dataset)
    from stages.formats.import_labels import sum_reports
    from storage.dataset import Dataset

    found = read_format(form, labels, with_crowds=with_crowds)
    first = next(found)  # refuses what is no such file before a dataset is made
    data = Dataset.open_or_create(dataset)
    reports = [_import(data, each, photos, ingest) for each in chain([first], found)]
    _print(sum_reports(reports), dataset, as_json)


def read_format(form: Form, path: Path, *, with_crowds: bool) -> "Iterator[Labels]":
    """Read labels of a format; a folder of SA-1B's tars gives those of each tar.

    Raises:
        ValueError: The file or folder is none of the format.
    """
    from stages.formats.coco import read_coco
    from stages.formats.cvat import read_cvat
    from stages.formats.label_studio import read_label_studio
    from stages.formats.sa1b import read_sa1b
    from stages.formats.yolo import read_yolo

    match form:
        case "coco":
            yield read_coco(path, with_crowds=with_crowds)
        case "sa1b":
            yield from read_sa1b(path)
        case "cvat":
            yield read_cvat(path)
        case "label-studio":
            yield read_label_studio(path)
        case "yolo":
            yield read_yolo(path)


def _import(data: "Dataset", labels: "Labels", photos: Path | None, ingest: "IngestConfig") -> "ImportReport":
    from stages.formats.import_labels import import_labels

    with reporter("ingest") as ingested, reporter("import") as imported:
        return import_labels(
            data,
            labels,
            photos,
            ingest=ingest,
            on_photo=lambda now: ingested(
                Counts(done=now.done, total=now.total, new=now.done, masks=0, rejects=now.rejects)
            ),
            on_images=lambda now: imported(
                Counts(done=now.done, total=now.total, new=now.new, masks=now.masks, new_masks=now.masks)
            ),
        )


def _print(report: "ImportReport", dataset: str, as_json: bool) -> None:
    from flows.cli.output import print_result

    if as_json:
        print_result(report, as_json)
        return
    shown = {name: getattr(report, name) for name in Imported.__dataclass_fields__}
    print_result(Imported(**shown), as_json)
    for each in report.left_out[:LINES]:
        log(f"left out: {each.what} ({each.reason}): {each.detail}")
    if len(report.left_out) > LINES:
        log(f"left out: {len(report.left_out) - LINES} more; --json names all")
    if report.categories:
        log("masks have no category in a dataset; the numbers above stay in the statistics of the masks' shards")
    log(f"next:   gigamask query --dataset {dataset} \"SELECT count(*) AS masks FROM masks WHERE stage = 'imported'\"")


def export(
    out: Annotated[Path, typer.Argument(help="New folder to write.")],
    form: Annotated[Form, typer.Option("--format", help="Format to write.")],
    snapshot: Annotated[str, typer.Option("--snapshot", help="Snapshot to export; `gigamask snapshot` makes one.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    min_iou: Annotated[
        float, typer.Option("--min-iou", help="Least IoU of a mask read again from a lossy format.", min=0, max=1)
    ] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Write the images and masks of a snapshot for another tool.

    Images leave as they are stored, with their metadata and without a check of licences and faces: to publish, use
    `gigamask release`. Images without masks, and masks withdrawn and images erased since the snapshot, are left out.
    """
    log(f"export: snapshot {snapshot} of {dataset} to {out}, {form}")
    if "://" in str(out).replace(":/", "://", 1):
        raise ValueError(f"{out}: an export is written to a folder of this machine; copy it to its place afterwards")
    check_dataset(dataset)
    from flows.cli.output import print_result
    from stages.formats.export import export_snapshot
    from storage.dataset import Dataset

    with reporter("export") as progress:
        report = export_snapshot(
            Dataset.open(dataset),
            snapshot,
            out,
            form,
            find_writer(form),
            min_iou=min_iou,
            on_image=lambda done, total, masks: progress(
                Counts(done=done, total=total, new=done, masks=masks, new_masks=masks)
            ),
        )
    print_result(report, as_json)


def find_writer(form: Form) -> "Writer":
    """Return the function that writes a format."""
    from stages.formats.coco import write_coco
    from stages.formats.cvat import write_cvat
    from stages.formats.label_studio import write_label_studio
    from stages.formats.sa1b import write_sa1b
    from stages.formats.yolo import write_yolo

    writers: dict[Form, Writer] = {
        "coco": write_coco,
        "sa1b": write_sa1b,
        "cvat": write_cvat,
        "label-studio": write_label_studio,
        "yolo": write_yolo,
    }
    return writers[form]
