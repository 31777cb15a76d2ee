"""The flow that opens a semi-automatic round; it closes like any other round.

open:   choose -> prefill -> ask
"""

from flows.assisted_manual import OpenedRound, ask, choose, find_opened
from flows.orchestration import flow, task
from stages.rounds.choose import ChosenImage
from stages.rounds.open import RoundRequest, until_free, with_guidelines
from stages.rounds.requests import request_to_open
from stages.semi_automatic.guidelines import GUIDELINES
from stages.semi_automatic.prefill_round import prefill_round
from storage.dataset import Dataset
from storage.workspace.records import GivenMask


@flow("semi-automatic")
def semi_automatic(dataset: str, workspace: str, request: RoundRequest, request_id: str | None = None) -> OpenedRound:
    """Open a semi-automatic round, or describe the one that the request with this id opened before.

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
        prefilled = prefill(dataset, request, images)
        return ask(dataset, workspace, with_guidelines(request, GUIDELINES), images, prefilled, client_request)

    return until_free(choose_and_ask)


@task("prefill")
def prefill(dataset: str, request: RoundRequest, images: list[ChosenImage]) -> dict[int, tuple[GivenMask, ...]]:
    """Find or make the masks that images begin with; a fraction of the images stays empty, for comparison."""
    return prefill_round(Dataset.open(dataset), request, images)
