"""Rounds: what annotators read about them, and what a lead does with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import Field

from stages.annotator.access import Annotator, Lead
from stages.annotator.schemas import Body, LongText, RoundView, ShortText
from stages.annotator.server import Server, TheServer
from stages.assisted_manual import guidelines as assisted_manual
from stages.rounds.close import ClosedRound, close_round
from stages.rounds.open import (
    RoundRequest,
    choose_for,
    make_tasks,
    open_round,
    request_of,
    until_free,
    with_guidelines,
)
from stages.rounds.quality import RoundReport, report_round
from stages.rounds.requests import DEFAULT_IMAGES, request_to_extend, request_to_open
from stages.semi_automatic import guidelines as semi_automatic
from stages.semi_automatic.prefill_round import prefill_round
from storage.errors import InvalidInput
from storage.workspace.records import Round, TaskSpec

router = APIRouter(prefix="/api/rounds", tags=["rounds"])

RoundId = Annotated[ShortText, Path(description="Id of a round.")]
PREFILL = "stage = 'fully_automatic'"
"""SQL condition for the masks that a semi-automatic round begins with."""
MAX_IMAGES = 100_000
"""Largest number of images of a round that is opened over HTTP."""


class RequestBody(Body):
    """What is done once, however often it is sent."""

    request_id: UUID | None = Field(
        default=None,
        description=(
            "Id that the client makes for the request. Sent again because the reply was lost, a request with the same "
            "id and the same content does nothing more and gets the same round; with another content it is refused "
            "(409, request_reused). If left out, every request counts."
        ),
    )

    @property
    def id_text(self) -> str | None:
        """The id as text; None without an id."""
        return None if self.request_id is None else str(self.request_id)


class OpenBody(RequestBody):
    """A round to open: over images that a query lists, or over random ones that no other round asks about."""

    stage: Literal["assisted_manual", "semi_automatic"] = Field(
        default="assisted_manual", description="A semi-automatic round begins with the fully automatic masks."
    )
    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")] = ""
    """Name for people; empty for none."""
    guidelines: LongText = Field(default="", description="Text that annotators are shown; the stage's own if empty.")
    images: int = Field(default=DEFAULT_IMAGES, ge=1, le=MAX_IMAGES)
    """Largest number of images."""
    query: LongText = Field(
        default="", description="SQL query with a column image_id, the most wanted first; a random order if empty."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of what is random: the order, and which images are overlapped."""
    overlap: int = Field(default=1, ge=1, le=20, description="Number of annotators who see an overlapped image.")
    overlap_fraction: float = Field(default=1.0, ge=0, le=1)
    """Fraction of the images that are overlapped."""
    empty_fraction: float = Field(
        default=0.0, ge=0, le=0.99, description="Fraction of a semi-automatic round's images that begin empty."
    )
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Priority among open rounds; tasks of higher priorities are given out first."""
    model: ShortText | None = Field(default=None, description="Model that answers prompts; the default if left out.")


class ExtendBody(RequestBody):
    """How many images to add to a round, chosen and overlapped as the round's first ones."""

    images: int = Field(ge=1, le=MAX_IMAGES)
    """Largest number of images to add."""
    query: LongText = Field(default="", description="SQL query with a column image_id; a random order if empty.")


class CloseBody(Body):
    """How to close a round."""

    discard_unfinished: bool = Field(
        default=False,
        description=(
            "Whether to close although annotators hold tasks, reviewers fix some, or masks are drafted and not "
            "submitted; none of this comes into the dataset."
        ),
    )


@router.get("")
def list_rounds(user: Annotator, server: TheServer) -> list[RoundView]:
    """Read all rounds, oldest first."""
    return [_view(server, each.round_id) for each in server.workspace.rounds.read_all()]


@router.get("/{round_id}")
def read_round(round_id: RoundId, user: Annotator, server: TheServer) -> RoundView:
    """Read a round with its guidelines."""
    return _view(server, round_id)


@router.post("")
def open_a_round(body: OpenBody, user: Lead, server: TheServer) -> RoundView:
    """Open a round; a request that comes again under its id gets the round that it opened."""
    client_request = request_to_open(_asked(body), body.id_text)
    found = server.workspace.rounds.opened_by(client_request)
    if found is None:
        request = _request(server, body)

        def choose_and_open() -> Round:
            tasks = _tasks(server, request)
            return open_round(server.workspace, request, tasks, client_request=client_request, actor=user.name)

        try:
            found = until_free(choose_and_open)
        except InvalidInput:
            found = server.workspace.rounds.opened_by(client_request)
            if found is None:  # else the same request came at the same moment, and has the last images
                raise
    return _view(server, found.round_id)


@router.post("/{round_id}/extend")
def extend_round(round_id: RoundId, body: ExtendBody, user: Lead, server: TheServer) -> RoundView:
    """Add images to a round; a request that comes again under its id adds none."""
    client_request = request_to_extend(body.id_text, images=body.images, query=body.query)
    rounds = server.workspace.rounds
    if rounds.extended_by(round_id, client_request) is None:
        request = request_of(rounds.get(round_id), images=body.images, query=body.query)
        request = replace(request, choose_by="random")  # a ranking would keep the server busy for minutes

        def choose_and_extend() -> int:
            tasks = _tasks(server, request)
            return rounds.extend(round_id, tasks, request=client_request, alone=True, actor=user.name)

        try:
            until_free(choose_and_extend)
        except InvalidInput:
            if rounds.extended_by(round_id, client_request) is None:  # as above
                raise
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
def close_a_round(round_id: RoundId, user: Lead, server: TheServer, body: CloseBody | None = None) -> ClosedRound:
    """Take the round's masks into the dataset; doing it again goes on where it stopped.

    A round that people are still at work on is refused (409, round_unfinished, with what closing would leave out),
    unless that is to be discarded; one that nobody answered is refused always (409, round_unanswered): cancel it.
    """
    discard = body is not None and body.discard_unfinished
    return close_round(server.dataset, server.workspace, round_id, discard_unfinished=discard, actor=user.name)


@router.get("/{round_id}/figures")
def read_figures(round_id: RoundId, user: Lead, server: TheServer) -> RoundReport:
    """Read how a round goes: masks, seconds per mask, people, agreement, gold results and forecast."""
    return report_round(server.workspace, round_id)


def _view(server: Server, round_id: str) -> RoundView:
    rounds = server.workspace.rounds
    return RoundView.of(rounds.get(round_id), rounds.progress(round_id))


def _asked(body: OpenBody) -> RoundRequest:
    """Write what a client asked for as a round; an empty model is the server's default."""
    wanted = body.model_dump(exclude={"request_id"})
    return RoundRequest(**{**wanted, "model": body.model or "", "prefill": PREFILL})


def _request(server: Server, body: OpenBody) -> RoundRequest:
    """Make the request of a round of what a client sent."""
    model = server.sessions.models.name_for_round(body.model)
    request = replace(_asked(body), model=model)
    guidelines = assisted_manual.GUIDELINES if body.stage == "assisted_manual" else semi_automatic.GUIDELINES
    return with_guidelines(request, guidelines)


def _tasks(server: Server, request: RoundRequest) -> tuple[TaskSpec, ...]:
    """Choose the images of a round, and the masks that they begin with."""
    images = choose_for(server.dataset, server.workspace, request)
    if request.stage == "assisted_manual":
        return make_tasks(server.dataset, request, images)
    return make_tasks(server.dataset, request, images, prefill_round(server.dataset, request, images))
