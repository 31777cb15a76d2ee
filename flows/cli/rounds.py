"""The commands below `gigamask round`: from opening a round to its report."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID, uuid4

import typer

from engine.selection.config import ChooseBy
from flows.cli.checks import check_dataset, check_prefill, read_text, workspace_place
from flows.cli.options import DEFAULT_DATASET, AsJson, DatasetUri, WorkspacePlace
from flows.progress import log
from flows.words import place_options

if TYPE_CHECKING:
    from stages.rounds.quality import RoundReport
    from storage.workspace.workspace import Workspace

RoundId = Annotated[str, typer.Argument(metavar="ROUND", help="Id of the round (`gigamask round status`).")]
Images = Annotated[int | None, typer.Option("--images", help="Number of images.", min=1, show_default="all")]
Query = Annotated[
    str | None,
    typer.Option("--query", help="SQL with a column image_id, the most wanted first.", show_default="random order"),
]
RequestId = Annotated[
    UUID | None,
    typer.Option(
        "--request-id",
        help="Id of this request, a UUID: given again with the same options, it does nothing twice.",
        show_default="a new one, which the first line tells",
    ),
]
Stage = Literal["assisted_manual", "semi_automatic"]
AUTOMATIC = "stage = 'fully_automatic'"
"""SQL condition for --prefill when it is not given."""


@dataclass(frozen=True, kw_only=True)
class RoundStatus:
    """One round, as `gigamask round status` shows it."""

    round_id: str
    name: str
    stage: str
    state: str
    images: int
    answers: int
    """Number of answers that the round wants."""
    done: int
    leased: int
    free: int
    claimable: int
    """Number of free answers that somebody can still give: who neither skipped nor answered the image."""
    skips: int
    late_work: int
    """Number of lines of late work that nobody has merged or dismissed."""
    opened_at: datetime


@dataclass(frozen=True, kw_only=True)
class AnnotatorRow:
    """One annotator, as `gigamask round report` shows them; the page and --json have the rest."""

    annotator: str
    answers: int
    made: int
    accepted: int
    edited: int
    rejected: int
    s_per_mask: float | None
    skips: int
    agreement: float | None
    gold_found: float | None


@dataclass(frozen=True, kw_only=True)
class ChangedRound:
    """Result of a command that changes the state of a round."""

    round_id: str
    state: str
    images: int
    """Number of images that the round asks about."""


def round_open(
    stage: Annotated[Stage, typer.Option("--stage", help="Stage of the engine.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    images: Images = None,
    query: Query = None,
    choose_by: Annotated[
        ChooseBy,
        typer.Option("--choose-by", help="Order without --query; all but `random` are rankings by the promoted model."),
    ] = "random",
    seed: Annotated[int, typer.Option("--seed", help="Seed of what is random.")] = 0,
    overlap: Annotated[int, typer.Option("--overlap", help="Annotators who see an overlapped image.", min=1)] = 1,
    overlap_fraction: Annotated[
        float, typer.Option("--overlap-fraction", help="Fraction of overlapped images.", min=0, max=1)
    ] = 1.0,
    gold: Annotated[
        str | None, typer.Option("--gold", help="SQL with image_id and mask_id of known good masks; never shown.")
    ] = None,
    guidelines: Annotated[
        Path | None, typer.Option("--guidelines", help="Text file for annotators.", show_default="the stage's own")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="Rounds of higher priority are given out first.")] = 0,
    prefill: Annotated[
        str | None,
        typer.Option(
            "--prefill",
            help="What images begin with: an SQL condition on `masks`, `detector` or `generator`.",
            show_default=AUTOMATIC,
        ),
    ] = None,
    empty_fraction: Annotated[
        float,
        typer.Option("--empty-fraction", help="Fraction of images that begin empty, to compare.", min=0, max=0.99),
    ] = 0.0,
    name: Annotated[str, typer.Option("--name", help="Name for people.")] = "",
    request_id: RequestId = None,
    as_json: AsJson = False,
) -> None:
    """Open a round: choose images and ask annotators about them. `gigamask annotate` serves its tasks."""
    request_id = request_id or uuid4()
    log(f"round open: {stage} over images of {dataset}, request {request_id}")
    if query and choose_by != "random":
        raise typer.BadParameter("--query gives an order already", param_hint="--choose-by")
    if stage == "assisted_manual" and (prefill is not None or empty_fraction):
        raise typer.BadParameter(
            "an assisted-manual round begins empty; use --stage semi_automatic", param_hint="--prefill"
        )
    place = workspace_place(dataset, workspace)
    text = read_text("--guidelines", guidelines) if guidelines else ""
    check_dataset(dataset)
    if prefill is not None:
        check_prefill(dataset, prefill)
    from flows.assisted_manual import assisted_manual
    from flows.cli.output import print_result
    from flows.semi_automatic import semi_automatic
    from stages.rounds.open import RoundRequest

    request = RoundRequest(
        stage=stage,
        images=images,
        query=query or "",
        choose_by=choose_by,
        seed=seed,
        overlap=overlap,
        overlap_fraction=overlap_fraction,
        gold=gold or "",
        name=name,
        guidelines=text,
        priority=priority,
        prefill=prefill or (AUTOMATIC if stage == "semi_automatic" else ""),
        empty_fraction=empty_fraction,
    )
    flow = semi_automatic if stage == "semi_automatic" else assisted_manual
    opened = flow(dataset, place, request, str(request_id))
    if images is not None and opened.images - opened.gold < images:
        log(f"note: {images} images were asked for, {opened.images - opened.gold} were left")
    if stage == "semi_automatic" and not opened.prefilled:
        log(f"note: no image begins with masks; {request.prefill!r} gave none")
    print_result(opened, as_json)
    if not as_json:
        log(f"next:   gigamask annotate {place_options(dataset, workspace)}")


def round_status(
    dataset: DatasetUri = DEFAULT_DATASET, workspace: WorkspacePlace = None, as_json: AsJson = False
) -> None:
    """List the rounds with their progress."""
    from flows.cli.output import print_rows

    with _open(dataset, workspace) as opened:
        rows = []
        for found in opened.rounds.read_all():
            progress = opened.rounds.progress(found.round_id)
            rows.append(
                RoundStatus(
                    round_id=found.round_id,
                    name=found.name,
                    stage=found.stage,
                    state=found.state,
                    images=progress.tasks,
                    answers=progress.slots,
                    done=progress.done,
                    leased=progress.leased,
                    free=progress.free,
                    claimable=progress.claimable,
                    skips=progress.skips,
                    late_work=progress.open_branches,
                    opened_at=found.created_at,
                )
            )
    print_rows(rows, as_json, empty=f"no round; `gigamask round open {place_options(dataset, workspace)}` opens one")


def round_extend(
    round_id: RoundId,
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    images: Images = None,
    query: Query = None,
    request_id: RequestId = None,
    as_json: AsJson = False,
) -> None:
    """Add images to a round that is open or paused, with the round's own settings."""
    request_id = request_id or uuid4()
    log(f"round extend: {round_id}, request {request_id}")
    from stages.rounds.choose import ChosenImage
    from stages.rounds.open import choose_for, make_tasks, request_of, until_free
    from stages.rounds.requests import request_to_extend
    from stages.semi_automatic.prefill_round import prefill_round
    from storage.dataset import Dataset

    data = Dataset.open(dataset)
    client_request = request_to_extend(str(request_id), images=images, query=query or "")
    with _open(dataset, workspace) as opened:
        added = opened.rounds.extended_by(round_id, client_request)
        if added is None:
            request = request_of(opened.rounds.get(round_id), images=images, query=query or "")

            def choose_and_extend() -> int:
                chosen: list[ChosenImage] = choose_for(data, opened, request)
                prefilled = prefill_round(data, request, chosen) if request.stage == "semi_automatic" else {}
                tasks = make_tasks(data, request, chosen, prefilled)
                return opened.rounds.extend(round_id, tasks, request=client_request, alone=not request.query)

            added = until_free(choose_and_extend)
        log(f"{added} images more")
        _print_changed(opened, round_id, as_json)


def _change_state(change: Literal["pause", "reopen", "cancel"], about: str) -> Callable[..., None]:
    """Make the command that changes the state of a round by the method of that name."""

    def command(
        round_id: RoundId,
        dataset: DatasetUri = DEFAULT_DATASET,
        workspace: WorkspacePlace = None,
        as_json: AsJson = False,
    ) -> None:
        with _open(dataset, workspace) as opened:
            getattr(opened.rounds, change)(round_id)
            _print_changed(opened, round_id, as_json)

    command.__doc__ = about
    return command


round_pause = _change_state("pause", "Stop giving out tasks of a round; tasks that are held can be finished.")
round_reopen = _change_state("reopen", "Give out tasks of a paused or cancelled round again.")
round_cancel = _change_state("cancel", "End a round without taking its masks into the dataset; `reopen` continues it.")


def round_simulate(
    round_id: RoundId,
    truth: Annotated[
        Path, typer.Option("--truth", help="Folder of the round's photos with their masks as SA-1B JSON.")
    ],
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    url: Annotated[str, typer.Option("--url", help="Address of the annotation server.")] = "http://127.0.0.1:8765",
    annotators: Annotated[int, typer.Option("--annotators", help="Number of simulated annotators.", min=1)] = 2,
    pace: Annotated[
        float, typer.Option("--pace", help="Simulated seconds that pass in a real second.", min=0.001)
    ] = 1000.0,
    max_masks: Annotated[
        int, typer.Option("--max-masks", help="Most masks that each makes on an image, the largest first.", min=1)
    ] = 8,
    seed: Annotated[int, typer.Option("--seed", help="Seed of what is random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Try a round without people: simulated annotators answer it from ground truth, over HTTP.

    The server is a running `gigamask annotate --team`. Accounts `simulated-1`, ... are open while they work. Their
    seconds come from a time model; the report and the column `simulated` say so.
    """
    log(f"round simulate: {round_id}, {annotators} simulated annotators at {url}")
    place = workspace_place(dataset, workspace)
    check_dataset(dataset)
    from flows.cli.output import print_result
    from stages.simulated.behaviour import Behaviour
    from stages.simulated.crew import CrewConfig, simulate_round
    from stages.simulated.truth import read_truth
    from storage.dataset import Dataset
    from storage.workspace.workspace import Workspace

    config = CrewConfig(annotators=annotators, seed=seed, behaviour=Behaviour(pace=pace, max_masks=max_masks))
    known = read_truth(truth, Dataset.open(dataset))
    with Workspace.open(place) as opened:
        print_result(simulate_round(opened, round_id, known, url.rstrip("/"), config), as_json)


def round_withdraw(
    round_id: RoundId,
    annotator: Annotated[str, typer.Option("--annotator", help="Whose masks to take back.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    as_json: AsJson = False,
) -> None:
    """Take the masks of one annotator of a round back, before or after it was closed."""
    if not reason.strip():
        raise typer.BadParameter("got an empty reason; people will read it later", param_hint="--reason")
    from flows.cli.output import print_result
    from stages.rounds.withdraw import withdraw_work
    from storage.dataset import Dataset

    data = Dataset.open(dataset)
    with _open(dataset, workspace) as opened:
        print_result(withdraw_work(data, opened, round_id, annotator, reason), as_json)


def round_report(
    round_id: RoundId,
    dataset: DatasetUri = DEFAULT_DATASET,
    workspace: WorkspacePlace = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="HTML page to write.", show_default="ROUND.html beside the workspace"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report a round's progress, seconds, skips, agreement and gold results, as a page or as JSON."""
    from stages.rounds.quality import report_round

    with _open(dataset, workspace) as opened:
        report = report_round(opened, round_id)
        folder = Path(opened.database.place).parent if opened.database.is_sqlite else Path()
    if as_json:
        print(json.dumps(asdict(report), default=str))
        return
    _print_report(report)
    from flows.pages.markup import write_page
    from flows.report.round_page import render_round

    log(f"report: {write_page(render_round(report), output or folder / f'{round_id}.html')}")


def _open(dataset: str, workspace: str | None) -> "Workspace":
    from storage.workspace.workspace import Workspace

    return Workspace.open(workspace_place(dataset, workspace))


def _print_changed(opened: "Workspace", round_id: str, as_json: bool) -> None:
    from flows.cli.output import print_result

    found, progress = opened.rounds.get(round_id), opened.rounds.progress(round_id)
    print_result(ChangedRound(round_id=round_id, state=found.state, images=progress.tasks), as_json)


def _print_report(report: "RoundReport") -> None:
    """Print the totals, then one line for each annotator."""
    from flows.cli.output import print_result, print_rows

    print_result(report.total, as_json=False)
    print()
    rows = [
        AnnotatorRow(
            annotator=each.annotator,
            answers=each.figures.answers,
            made=each.figures.masks_made,
            accepted=each.figures.prefill_accepted,
            edited=each.figures.prefill_edited,
            rejected=each.figures.prefill_rejected,
            s_per_mask=each.figures.seconds_per_mask,
            skips=each.skips,
            agreement=None if each.agreement is None else each.agreement.mean,
            gold_found=None if each.gold_found is None else each.gold_found.mean,
        )
        for each in report.annotators
    ]
    print_rows(rows, as_json=False, empty="no answer yet")
