"""The Prefect flows of an assisted-manual round: images are chosen and asked about; answers become masks.

open:   choose -> ask
close:  collect -> (the round's report)
"""

from dataclasses import dataclass

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from stages.assisted_manual.guidelines import GUIDELINES
from stages.rounds.choose import ChosenImage
from stages.rounds.close import ClosedRound
from stages.rounds.close import close_round as close_stage_round
from stages.rounds.open import RoundRequest, choose_for, make_tasks, open_round, with_guidelines
from storage.dataset import Dataset
from storage.workspace.records import GivenMask
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


@flow(name="assisted-manual")
def assisted_manual(dataset: str, workspace: str, request: RoundRequest) -> OpenedRound:
    """Open an assisted-manual round.

    Raises:
        ValueError: The request is malformed, or no image is left.
    """
    images = choose(dataset, workspace, request)
    return ask(dataset, workspace, with_guidelines(request, GUIDELINES), images, {})


@flow(name="close-round")
def close_round(dataset: str, workspace: str, round_id: str) -> ClosedRound:
    """Close a round of any stage: its answers become masks of the dataset, once.

    Raises:
        NotFound: There is no such round.
        ValueError: The round is cancelled, or is about another dataset.
    """
    return collect(dataset, workspace, round_id)


@task(name="choose", cache_policy=NO_CACHE)
def choose(dataset: str, workspace: str, request: RoundRequest) -> list[ChosenImage]:
    """Choose the images of the round."""
    with Workspace.open(workspace) as opened:
        return choose_for(Dataset.open(dataset), opened, request)


@task(name="ask", cache_policy=NO_CACHE)
def ask(
    dataset: str,
    workspace: str,
    request: RoundRequest,
    images: list[ChosenImage],
    prefilled: dict[int, tuple[GivenMask, ...]],
) -> OpenedRound:
    """Open the round in the workspace, from where annotators get its tasks."""
    data = Dataset.open(dataset)
    tasks = make_tasks(data, request, images, prefilled)
    with Workspace.open(workspace) as opened:
        found = open_round(opened, request, tasks)
    return OpenedRound(
        round_id=found.round_id,
        stage=found.stage,
        images=len(tasks),
        slots=sum(each.overlap for each in tasks),
        gold=sum(bool(each.gold) for each in tasks),
        prefilled=sum(bool(each.prefill) for each in tasks),
        prefilled_masks=sum(len(each.prefill) for each in tasks),
        dataset=data.uri,
    )


@task(name="collect", cache_policy=NO_CACHE)
def collect(dataset: str, workspace: str, round_id: str) -> ClosedRound:
    """Turn the answers into mask shards, fold them, and mark the round as closed."""
    with Workspace.open(workspace) as opened:
        return close_stage_round(Dataset.open(dataset), opened, round_id)
