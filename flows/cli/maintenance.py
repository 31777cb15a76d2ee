"""The commands `gc`, `redo`, `withdraw`, `erase` and `rebuild`, which keep a dataset in order."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri
from flows.progress import LineClock, log, print_lines, print_phases
from flows.words import duration

if TYPE_CHECKING:
    from storage.dataset import Dataset
    from storage.protocol.plans import Plan


@dataclass(frozen=True, kw_only=True)
class CleanedUp:
    """Result of `gigamask gc`; without --delete, the numbers state what --delete would remove."""

    deleted: bool
    garbage: int
    """Number of objects that losing attempts left."""
    table_files: int
    """Number of files of tables that killed folds and rebuilds left."""
    nbytes: int
    """Size of the garbage and of these files, in bytes."""
    unfinished: int
    """Number of half-written files."""
    kept: int
    """Number of objects that no commit record names and whose attempts may still win."""
    closed: list[str]
    """Names of the shards that --close gave up for good."""


@dataclass(frozen=True, kw_only=True)
class PlannedRedo:
    """Result of `gigamask redo` for one of the plans that it redoes."""

    plan: str
    """Id of the new plan."""
    redoes: str
    """Id of the plan whose shards are made again."""
    shards: int
    rejects: int
    """Number of rejects in the records that the redo will replace."""


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """Result of `gigamask withdraw`."""

    masks: int
    images: int
    reason: str
    plan: str
    """Id of the withdrawal's plan; empty after --dry-run."""


@dataclass(frozen=True, kw_only=True)
class ErasedImages:
    """Result of `gigamask erase`; after --dry-run, the numbers state what would be erased."""

    images: int
    objects: list[str]
    """Keys of the objects in which the images are overwritten with zeros."""
    nbytes: int
    """Number of bytes that are overwritten."""
    unreadable: list[str]
    """Keys of damaged objects, which may hold more of the images."""
    reason: str
    plan: str
    """Id of the erasure's plan; empty after --dry-run and --finish."""
    releases: list[str]
    """Releases that hold the images, one line each, or why they cannot be read; they are not changed."""


def gc(
    dataset: DatasetUri = DEFAULT_DATASET,
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it, only list.")] = False,
    close: Annotated[str | None, typer.Option(metavar="PLAN", help="First give up this plan's missing shards.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove what crashed and losing attempts, folds and rebuilds left; without --delete, only count it.

    Live workers and folds may go on. A rebuild that is under way has to be started again.
    """
    from flows.cli.output import print_result
    from storage.dataset import Dataset

    data = Dataset.open(dataset)
    closed: list[str] = []
    if close is not None:
        plan = _plan(data, close)
        closed = [shard.name for shard in data.missing(plan)]
        if delete:
            closed = [record.shard for record in data.maintenance.close(plan)]
    report = data.maintenance.clean(delete=delete, on_progress=print_phases("gc"))
    result = CleanedUp(
        deleted=report.deleted,
        garbage=len(report.garbage),
        table_files=len(report.table_files),
        nbytes=report.nbytes,
        unfinished=report.unfinished,
        kept=len(report.kept),
        closed=closed,
    )
    print_result(result, as_json)
    if not delete:
        log("dry run, nothing was changed; add --delete")


def redo(
    dataset: DatasetUri = DEFAULT_DATASET,
    plan: Annotated[str | None, typer.Option(help="Plan to redo.", show_default="every plan of masks")] = None,
    shard: Annotated[
        list[str] | None, typer.Option(help="Shard of --plan, with or without rejects. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Plan finished shards again if they have rejects or are named; `gigamask masks` then makes the planned shards.

    A shard with rejects keeps its masks, and only its rejects are tried again. A named shard without rejects is made
    again as a whole.
    """
    from flows.cli.output import print_rows
    from storage.dataset import Dataset

    if shard and plan is None:
        raise typer.BadParameter("a shard is named within its plan; give --plan, too", param_hint="--shard")
    data = Dataset.open(dataset)
    homes = [_plan(data, plan)] if plan else [each for each in data.plans() if each.kind == "masks" and not each.redoes]
    if plan is None:
        homes = [home for home in homes if any(record.rejects for record in data.commits(home))]
    rows = [_plan_redo(data, home, shard) for home in homes]
    print_rows(rows, as_json, empty=f"{dataset}: no finished mask shard has rejects; there is nothing to redo")
    if rows:
        command = "masks" if rows[0].plan.startswith("masks") else "ingest PHOTOS"
        log(f"next:   gigamask {command} --dataset {dataset}, with the same settings as before")


def withdraw(
    reason: Annotated[str, typer.Option(help="Reason, recorded permanently.")],
    where: Annotated[
        str | None, typer.Option(help='SQL condition on masks, e.g. "stability_score < 0.9".', metavar="SQL")
    ] = None,
    ids: Annotated[Path | None, typer.Option(help="CSV file with columns image_id and mask_id; - for stdin.")] = None,
    dataset: DatasetUri = DEFAULT_DATASET,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the masks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Withdraw masks with a commit record: the masks leave the tables, training and release, but stay in the shards."""
    from flows.cli.output import print_result
    from storage.dataset import Dataset

    if (where is None) == (ids is None):
        raise typer.BadParameter("give either a condition (--where) or a list (--ids)", param_hint="--where / --ids")
    if not reason.strip():
        raise typer.BadParameter("got an empty reason; people will read it later", param_hint="--reason")
    data = Dataset.open(dataset)
    pairs = _pairs_where(data, where) if where is not None else _pairs_in(ids)
    if not pairs:
        raise ValueError(f"{dataset}: no mask fits; nothing was withdrawn")
    plan = "" if dry_run else data.withdraw(pairs, reason.strip(), on_progress=print_phases("withdraw")).plan_id
    images = len({image_id for image_id, _ in pairs})
    print_result(Withdrawn(masks=len(pairs), images=images, reason=reason.strip(), plan=plan), as_json)


def erase(
    image: Annotated[
        list[str] | None, typer.Option(help="Key of an image: 16 hex digits. Repeatable.", metavar="KEY")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Reason, recorded permanently.")] = None,
    finish: Annotated[bool, typer.Option("--finish", help="Only complete earlier erasures.")] = False,
    dataset: DatasetUri = DEFAULT_DATASET,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the objects that hold the images.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase images and their masks for good: zeros in every shard, old generations included. Nothing undoes it."""
    from flows.cli.output import print_result
    from storage.dataset import Dataset
    from storage.protocol.erasures import erasures_of

    reason = (reason or "").strip()
    if finish and (image or reason or dry_run):
        raise typer.BadParameter("it completes all earlier erasures; give no other option", param_hint="--finish")
    if not finish and not (image and reason):
        raise typer.BadParameter(
            "give the images and a reason; people will read it later", param_hint="--image / --reason"
        )
    image_ids = [_image_id(key) for key in image or ()]
    data = Dataset.open(dataset)
    plan, unreadable, show = "", [], print_phases("erase")
    image_ids = list(data.erasures().images) if finish else image_ids
    releases = _releases_with(data, image_ids)  # a damaged record of a release keeps no image alive
    if dry_run:
        found = data.maintenance.find_images(image_ids, on_progress=show)
        ranges, unreadable = found.objects, list(found.unreadable)
    elif finish:
        erasures = data.maintenance.finish_erasures(on_progress=show)
        image_ids, ranges = list(erasures.images), erasures.ranges
    else:
        commit = data.erase(image_ids, reason, on_progress=show)
        ranges, plan, unreadable = erasures_of([commit]).ranges, commit.plan_id, _texts(commit.stats["unreadable"])
    result = ErasedImages(
        images=len(set(image_ids)),
        objects=sorted(ranges),
        nbytes=sum(nbytes for some in ranges.values() for _, nbytes in some),
        unreadable=unreadable,
        reason=reason,
        plan=plan,
        releases=releases,
    )
    print_result(result, as_json)
    if releases:
        log("releases hold these images, and are not changed; withdraw them where they were published")


def _releases_with(data: Dataset, image_ids: list[int]) -> list[str]:
    """Describe the releases that hold images, one line each."""
    from storage.errors import Corrupt

    try:
        found = data.releases.with_images(image_ids)
    except Corrupt as damage:
        return [f"unknown: {damage}"]
    return [
        f"{each.release_id} ({each.title}) of {each.made_at:%Y-%m-%d}, written to {each.out}, holds {count} of them"
        for each, count in found
    ]


def rebuild(dataset: DatasetUri = DEFAULT_DATASET, as_json: AsJson = False) -> None:
    """Rebuild the five tables from the commit records, even where tables are damaged; snapshots stay valid."""
    from flows.cli.output import print_result
    from storage.dataset import Dataset

    log(f"rebuild: the tables of {dataset} from its commit records ...")
    maintenance = Dataset.open(dataset).maintenance
    print_result(maintenance.rebuild_tables(on_records=print_lines("rebuild", "records")), as_json)


def upgrade(dataset: DatasetUri = DEFAULT_DATASET, as_json: AsJson = False) -> None:
    """Bring a dataset of an earlier version to the present format; earlier versions refuse it from then on."""
    from flows.cli.output import print_result
    from storage.dataset import Dataset

    log(f"upgrade: {dataset} ...")
    print_result(Dataset.open(dataset).maintenance.upgrade(), as_json)


def _plan(data: Dataset, plan_id: str) -> Plan:
    """Read a plan.

    Raises:
        ValueError: There is no such plan; the message names the known plans.
    """
    from storage.errors import NotFound

    try:
        return data.plan(plan_id)
    except (NotFound, ValueError) as error:
        known = ", ".join(plan.plan_id for plan in data.plans()) or "none"
        raise ValueError(f"{data.uri}: no plan {plan_id!r}; there are: {known}") from error


def _plan_redo(data: Dataset, home: Plan, shards: list[str] | None) -> PlannedRedo:
    before = {record.shard: len(record.rejects) for record in data.commits(home)}
    redone = data.maintenance.plan_redo(home, shards)
    return PlannedRedo(
        plan=redone.plan_id,
        redoes=redone.redoes,
        shards=len(redone.shards),
        rejects=sum(before.get(shard.name, 0) for shard in redone.shards),
    )


def _texts(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(each) for each in value]


def _image_id(key: str) -> int:
    """Read the key of an image.

    Raises:
        BadParameter: It is none.
    """
    from storage.protocol.inputs import ImageKey

    try:
        return ImageKey.parse(f"@{key}").image_id
    except ValueError as error:
        hint = "expected 16 hex digits, as in the column key of the table images"
        raise typer.BadParameter(f"got {key!r}, {hint}", param_hint="--image") from error


def _pairs_where(data: Dataset, condition: str) -> list[tuple[int, int]]:
    clock, pairs = LineClock(), list[tuple[int, int]]()
    for batch in data.masks(filter=condition, columns=["image_id", "mask_id"]):
        pairs += zip(batch.column("image_id").to_pylist(), batch.column("mask_id").to_pylist(), strict=True)
        if clock.is_due():  # how many masks the condition still has to pass over is not known
            log(f"withdraw: looking for masks for {duration(clock.passed_s)}, {len(pairs)} fit so far")
    return pairs


def _pairs_in(path: Path | None) -> list[tuple[int, int]]:
    """Read (image_id, mask_id) pairs from a CSV file.

    Raises:
        ValueError: A line is malformed; the message names the line.
    """
    assert path is not None
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable CSV file ({error})") from error
    lines = text.removeprefix("\ufeff").splitlines()
    is_of_a_spreadsheet = bool(lines) and "," not in lines[0]  # in many countries they write semicolons
    rows = csv.DictReader(lines, delimiter=";" if is_of_a_spreadsheet else ",")
    if not {"image_id", "mask_id"} <= set(rows.fieldnames or ()):
        raise ValueError(f"{path}: got columns {rows.fieldnames}, expected image_id and mask_id in the first line")
    try:
        return sorted({(int(row["image_id"]), int(row["mask_id"])) for row in rows})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: line {rows.line_num}: ids are whole numbers ({error})") from error
