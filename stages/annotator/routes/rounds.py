"""Rounds: what annotators read about them, and what a lead does with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from stages.annotator.access import Annotator, Lead
from stages.annotator.schemas import Body, LongText, RoundView, ShortText
from stages.annotator.server import Server, TheServer
from stages.rounds.close import close_round
from storage.errors import NotFound
from storage.workspace.records import RoundSpec, TaskSpec

router = APIRouter(prefix="/api/rounds", tags=["rounds"])

RoundId = Annotated[ShortText, Path(description="Id of a round.")]
MAX_IMAGES = 100_000
"""Largest number of images of a round that is opened over HTTP."""


class OpenBody(Body):
    """A round to open over images of the dataset."""

    stage: Literal["assisted_manual", "semi_automatic"] = "assisted_manual"
    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")] = ""
    guidelines: LongText = ""
    images: int = Field(default=100, ge=1, le=MAX_IMAGES, description="Number of images, taken in the order of ids.")
    overlap: int = Field(default=1, ge=1, le=20, description="Number of annotators who see each image.")
    priority: int = Field(default=0, ge=-1000, le=1000)
    model: ShortText | None = Field(default=None, description="Model that answers prompts; the default if left out.")


class ExtendBody(Body):
    """Images to add to a round."""

    images: int = Field(ge=1, le=MAX_IMAGES)
    overlap: int = Field(default=1, ge=1, le=20)


class PersonView(BaseModel):
    """One annotator's part in a round."""

    annotator: str
    submissions: int
    masks: int
    skips: int


class FiguresView(BaseModel):
    """A round while it runs."""

    round: RoundView
    masks: int = Field(description="Number of masks in submissions that were not sent back or withdrawn.")
    people: list[PersonView]


class ClosedView(BaseModel):
    """What became of a closed round."""

    round_id: str
    plan_id: str = Field(description="Plan of the masks; empty for a round without submissions.")
    images: int
    masks: int
    annotations: int = Field(description="Number of rows in the table `annotations`.")
    withdrawn: int = Field(description="Number of earlier masks that the round replaced or rejected.")
    rejects: int = Field(description="Number of images that the dataset no longer holds.")


@router.get("")
def list_rounds(user: Annotator, server: TheServer) -> list[RoundView]:
    """Read all rounds, oldest first."""
    return [_view(server, each.round_id) for each in server.workspace.rounds.read_all()]


@router.get("/{round_id}")
def read_round(round_id: RoundId, user: Annotator, server: TheServer) -> RoundView:
    """Read a round with its guidelines."""
    return _view(server, round_id)


@router.post("")
def open_round(body: OpenBody, user: Lead, server: TheServer) -> RoundView:
    """Open a round."""
    settings: dict[str, Any] = {"model": server.sessions.models.get(body.model).model_id}
    spec = RoundSpec(
        stage=body.stage,
        name=body.name,
        guidelines=body.guidelines,
        priority=body.priority,
        settings=settings,
        tasks=_tasks(server, body.images, body.overlap),
    )
    return _view(server, server.workspace.rounds.open(spec, actor=user.name).round_id)


@router.post("/{round_id}/extend")
def extend_round(round_id: RoundId, body: ExtendBody, user: Lead, server: TheServer) -> RoundView:
    """Add images to a round; those it has are left alone."""
    has = {task.image_id for task in server.workspace.rounds.tasks(round_id)}
    tasks = [task for task in _tasks(server, len(has) + body.images, body.overlap) if task.image_id not in has]
    server.workspace.rounds.extend(round_id, tasks[: body.images], actor=user.name)
    return _view(server, round_id)


@router.post("/{round_id}/pause")
def pause_round(round_id: RoundId, user: Lead, server: TheServer) -> RoundView:
    """Stop giving out tasks; those that are held can be finished."""
    server.workspace.rounds.pause(round_id, actor=user.name)
    return _view(server, round_id)


@router.post("/{round_id}/reopen")
def reopen_round(round_id: RoundId, user: Lead, server: TheServer) -> RoundView:
    """Give out tasks of a paused or cancelled round again."""
    server.workspace.rounds.reopen(round_id, actor=user.name)
    return _view(server, round_id)


@router.post("/{round_id}/cancel")
def cancel_round(round_id: RoundId, user: Lead, server: TheServer) -> RoundView:
    """End a round without its masks; reopening continues it."""
    server.workspace.rounds.cancel(round_id, actor=user.name)
    return _view(server, round_id)


@router.post("/{round_id}/close")
def close_a_round(round_id: RoundId, user: Lead, server: TheServer) -> ClosedView:
    """Take the round's masks into the dataset; doing it again goes on where it stopped."""
    return ClosedView(**vars(close_round(server.dataset, server.workspace, round_id, actor=user.name)))


@router.get("/{round_id}/figures")
def read_figures(round_id: RoundId, user: Lead, server: TheServer) -> FiguresView:
    """Read how a round goes: masks and people."""
    submissions = server.workspace.submissions.read(round_id=round_id)
    valid = [each for each in submissions if each.state in ("submitted", "accepted")]
    skips = server.workspace.submissions.skips(round_id)
    names = sorted({each.annotator for each in submissions} | set(skips))
    people = [
        PersonView(
            annotator=name,
            submissions=sum(each.annotator == name for each in valid),
            masks=sum(each.masks for each in valid if each.annotator == name),
            skips=skips.get(name, 0),
        )
        for name in names
    ]
    return FiguresView(round=_view(server, round_id), masks=sum(each.masks for each in valid), people=people)


def _view(server: Server, round_id: str) -> RoundView:
    rounds = server.workspace.rounds
    return RoundView.of(rounds.get(round_id), rounds.progress(round_id))


def _tasks(server: Server, images: int, overlap: int) -> tuple[TaskSpec, ...]:
    sql = f"SELECT image_id, height, width FROM images ORDER BY image_id LIMIT {int(images)}"
    rows = server.dataset.query(sql).to_pylist()
    if not rows:
        raise NotFound(f"{server.dataset.uri}: the dataset has no image; run `gigamask ingest` first")
    return tuple(TaskSpec(overlap=overlap, **row) for row in rows)
