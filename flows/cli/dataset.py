"""Commands for the keeper of a dataset: clean up, redo failed shards, take masks back, make the tables anew."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.progress import say

if TYPE_CHECKING:
    from storage.dataset import Dataset as Data
    from storage.protocol.plans import Plan

dataset_app = typer.Typer()

Dataset = Annotated[str, typer.Option("--dataset", help="Folder or s3:// prefix of the dataset.", show_default=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DEFAULT_DATASET = "gigamask-dataset"


@dataclass(frozen=True, kw_only=True)
class CleanedUp:
    """What `gigamask gc` prints. Without --delete nothing was written: it is what would be done."""

    deleted: bool
    garbage: int
    """Objects of attempts that have lost."""
    nbytes: int
    """Their size."""
    unfinished: int
    """Half-written files."""
    kept: int
    """Objects that no record names, of attempts that may still win."""
    closed: list[str]
    """Shards of the plan of --close that nobody will make any more."""


@dataclass(frozen=True, kw_only=True)
class PlannedRedo:
    """What `gigamask redo` prints for each plan."""

    plan: str
    redoes: str
    shards: int
    rejects: int
    """In the records that are to be replaced."""


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """What `gigamask withdraw` prints."""

    masks: int
    images: int
    reason: str
    plan: str
    """Of the record; empty after --dry-run."""


@dataset_app.command()
def gc(
    dataset: Dataset = DEFAULT_DATASET,
    delete: Annotated[bool, typer.Option("--delete", help="Do it; without, only say what would be done.")] = False,
    close: Annotated[str | None, typer.Option(metavar="PLAN", help="Give up this plan's missing shards first.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove what crashed and beaten attempts left; a dry run unless --delete. Safe beside live workers."""
    from flows.cli.output import print_result
    from storage.dataset import Dataset as Data

    data = Data.open(dataset)
    closed: list[str] = []
    if close is not None:
        plan = _plan(data, close)
        closed = [shard.name for shard in data.missing(plan)]
        if delete:
            closed = [record.shard for record in data.close(plan)]
    report = data.clean(delete=delete)
    result = CleanedUp(
        deleted=report.deleted,
        garbage=len(report.garbage),
        nbytes=report.nbytes,
        unfinished=report.unfinished,
        kept=len(report.kept),
        closed=closed,
    )
    print_result(result, as_json)
    if not delete:
        say("nothing was changed; --delete does it")


@dataset_app.command()
def redo(
    dataset: Dataset = DEFAULT_DATASET,
    plan: Annotated[str | None, typer.Option(help="Only this plan.", show_default="every plan of masks")] = None,
    shard: Annotated[
        list[str] | None, typer.Option(help="These shards of --plan, rejects or not; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Plan failed images of finished shards again, as a new generation; `gigamask masks` then makes it.

    A shard with rejects keeps its masks and tries only the rejects; one without is made anew as a whole.
    """
    from flows.cli.output import print_rows
    from storage.dataset import Dataset as Data

    if shard and plan is None:
        raise typer.BadParameter("shards are named within a plan; give --plan, too", param_hint="--shard")
    data = Data.open(dataset)
    homes = [_plan(data, plan)] if plan else [each for each in data.plans() if each.kind == "masks" and not each.redoes]
    if plan is None:
        homes = [home for home in homes if any(record.rejects for record in data.commits(home))]
    rows = [_plan_redo(data, home, shard) for home in homes]
    print_rows(rows, as_json, empty=f"{dataset}: no finished mask shard has rejects; there is nothing to redo")
    if rows:
        command = "masks" if rows[0].plan.startswith("masks") else "ingest PHOTOS"
        say(f"next:   gigamask {command} --dataset {dataset}, with the same settings as before")


@dataset_app.command()
def withdraw(
    reason: Annotated[str, typer.Option(help="Why; it is recorded for good.")],
    where: Annotated[
        str | None, typer.Option(help='SQL condition over `masks`: "stability_score < 0.9".', metavar="SQL")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="CSV file with columns image_id and mask_id; - is standard input.")
    ] = None,
    dataset: Dataset = DEFAULT_DATASET,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take masks back by a record of its own: gone from the tables, training and release, never from the shards."""
    from flows.cli.output import print_result
    from storage.dataset import Dataset as Data

    if (where is None) == (ids is None):
        raise typer.BadParameter("give either a condition (--where) or a list (--ids)", param_hint="--where / --ids")
    if not reason.strip():
        raise typer.BadParameter("got an empty one; it is what people will read later", param_hint="--reason")
    data = Data.open(dataset)
    pairs = _pairs_where(data, where) if where is not None else _pairs_in(ids)
    if not pairs:
        raise ValueError(f"{dataset}: no mask fits; nothing is withdrawn")
    plan = "" if dry_run else data.withdraw(pairs, reason.strip()).plan_id
    images = len({image_id for image_id, _ in pairs})
    print_result(Withdrawn(masks=len(pairs), images=images, reason=reason.strip(), plan=plan), as_json)


@dataset_app.command()
def rebuild(dataset: Dataset = DEFAULT_DATASET, as_json: AsJson = False) -> None:
    """Make the four tables anew from the commit records, whatever state they are in; older snapshots keep theirs."""
    from flows.cli.output import print_result
    from storage.dataset import Dataset as Data

    say(f"rebuild: the tables of {dataset} from its commit records ...")
    print_result(Data.open(dataset).rebuild_tables(), as_json)


def _plan(data: "Data", plan_id: str) -> "Plan":
    """Raises ValueError, naming the plans there are."""
    from storage.errors import NotFound

    try:
        return data.plan(plan_id)
    except (NotFound, ValueError) as error:
        known = ", ".join(plan.plan_id for plan in data.plans()) or "none"
        raise ValueError(f"{data.uri}: no plan {plan_id!r}; there are: {known}") from error


def _plan_redo(data: "Data", home: "Plan", shards: list[str] | None) -> PlannedRedo:
    before = {record.shard: len(record.rejects) for record in data.commits(home)}
    redone = data.plan_redo(home, shards)
    return PlannedRedo(
        plan=redone.plan_id,
        redoes=redone.redoes,
        shards=len(redone.shards),
        rejects=sum(before.get(shard.name, 0) for shard in redone.shards),
    )


def _pairs_where(data: "Data", condition: str) -> list[tuple[int, int]]:
    rows = data.masks(filter=condition, columns=["image_id", "mask_id"]).read_all()
    return list(zip(rows.column("image_id").to_pylist(), rows.column("mask_id").to_pylist(), strict=True))


def _pairs_in(path: Path | None) -> list[tuple[int, int]]:
    """Raises ValueError with the line at fault."""
    assert path is not None
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable CSV file ({error})") from error
    rows = csv.DictReader(text.splitlines())
    if not {"image_id", "mask_id"} <= set(rows.fieldnames or ()):
        raise ValueError(f"{path}: got columns {rows.fieldnames}, expected image_id and mask_id in the first line")
    try:
        return sorted({(int(row["image_id"]), int(row["mask_id"])) for row in rows})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: line {rows.line_num}: ids are whole numbers ({error})") from error
