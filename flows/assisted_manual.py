"""The flows of an assisted-manual round: images are chosen and asked about; answers become masks.

open:   choose -> ask
close:  collect -> (the round's report)
"""

from dataclasses import dataclass

from flows.orchestration import flow, task
from stages.assisted_manual.guidelines import GUIDELINES
from stages.rounds.choose import ChosenImage
from stages.rounds.close import ClosedRound
from stages.rounds.close import close_round as close_stage_round
from stages.rounds.open import RoundRequest, choose_for, make_tasks, open_round, until_free, with_guidelines
from stages.rounds.requests import request_to_open
from storage.dataset import Dataset
from storage.workspace.records import ClientRequest, GivenMask, Round
from storage.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class OpenedRound:
    """Result of `gigamask round open`."""

    round_id: str
    stage: str
    images: int
    """Number of images that the round asks about."""
    slots: int
    """Number of answers that the round wants: images, each as often as it is to be seen."""
    gold: int
    """Number of gold images, which annotators cannot tell from others."""
    prefilled: int
    """Number of images that begin with masks."""
    prefilled_masks: int
    dataset: str


@flow("assisted-manual")
def assisted_manual(dataset: str, workspace: str, request: RoundRequest, request_id: str | None = None) -> OpenedRound:
    """Open an assisted-manual round, or describe the one that the request with this id opened before.

    Raises:
        RequestReused: Another request has the id.
        ValueError: The request is malformed, or no image is left.
    """
    client_request = request_to_open(request, request_id)
    earlier = find_opened(dataset, workspace, client_request)
    if earlier is not None:
        return earlier

    def choose_and_ask() -> OpenedRound:
        images = choose(dataset, workspace, request)
        return ask(dataset, workspace, with_guidelines(request, GUIDELINES), images, {}, client_request)

    return until_free(choose_and_ask)


@flow("close-round")
def close_round(dataset: str, workspace: str, round_id: str, *, discard_unfinished: bool) -> ClosedRound:
    """Close a round of any stage: its answers become masks of the dataset, once.

    Raises:
        NotFound: There is no such round.
        UnansweredRound: Nobody answered the round.
        UnfinishedRound: People are at work on it, and their work is not to be discarded.
        ValueError: The round is cancelled, or is about another dataset.
    """
    return collect(dataset, workspace, round_id, discard_unfinished=discard_unfinished)


@task("find-opened")
def find_opened(dataset: str, workspace: str, client_request: ClientRequest | None) -> OpenedRound | None:
    """Describe the round that a request opened before; None for a new request."""
    with Workspace.open(workspace) as opened:
        found = opened.rounds.opened_by(client_request)
        return None if found is None else _describe(opened, found, Dataset.open(dataset).uri)


@task("choose")
def choose(dataset: str, workspace: str, request: RoundRequest) -> list[ChosenImage]:
    """Choose the images of the round."""
    with Workspace.open(workspace) as opened:
        return choose_for(Dataset.open(dataset), opened, request)


@task("ask")
def ask(
    dataset: str,
    workspace: str,
    request: RoundRequest,
    images: list[ChosenImage],
    prefilled: dict[int, tuple[GivenMask, ...]],
    client_request: ClientRequest | None,
) -> OpenedRound:
    """Open the round in the workspace, from where annotators get its tasks."""
    data = Dataset.open(dataset)
    tasks = make_tasks(data, request, images, prefilled)
    with Workspace.open(workspace) as opened:
        found = open_round(opened, request, tasks, client_request=client_request)
        return _describe(opened, found, data.uri)


@task("collect")
def collect(dataset: str, workspace: str, round_id: str, *, discard_unfinished: bool) -> ClosedRound:
    """Turn the answers into mask shards, fold them, and mark the round as closed."""
    with Workspace.open(workspace) as opened:
        return close_stage_round(Dataset.open(dataset), opened, round_id, discard_unfinished=discard_unfinished)


def _describe(workspace: Workspace, found: Round, dataset: str) -> OpenedRound:
    """Count what a round that was opened holds."""
    progress = workspace.rounds.progress(found.round_id)
    prefilled, prefilled_masks = workspace.rounds.count_prefilled(found.round_id)
    return OpenedRound(
        round_id=found.round_id,
        stage=found.stage,
        images=progress.tasks,
        slots=progress.slots,
        gold=sum(each.gold for each in workspace.rounds.tasks(found.round_id)),
        prefilled=prefilled,
        prefilled_masks=prefilled_masks,
        dataset=dataset,
    )
