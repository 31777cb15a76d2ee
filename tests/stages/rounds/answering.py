"""Annotators that answer through the workspace's methods: fixed masks, fixed times."""

import numpy as np

from storage import rle
from storage.dataset import Dataset
from storage.rle import Rle
from storage.workspace.records import GivenMask, Lease, Round, RoundSpec, TaskSpec
from storage.workspace.workspace import Workspace
from tests.small_dataset import SIDE
from tests.workspaces import Page, made


def square(x: int, side: int = 20) -> Rle:
    """A square of the small dataset's images."""
    mask_HW = np.zeros((SIDE, SIDE), np.bool_)
    mask_HW[5 : 5 + side, x : x + side] = True
    return rle.encode(mask_HW)


def image_ids(dataset: Dataset) -> list[int]:
    """Ids of all images, ascending."""
    ids: list[int] = sorted(dataset.query("SELECT image_id FROM images")["image_id"].to_pylist())
    return ids


def small_round(
    workspace: Workspace,
    images: list[int],
    *,
    overlap: int = 1,
    prefill: tuple[GivenMask, ...] = (),
    gold: tuple[GivenMask, ...] = (),
    stage: str = "assisted_manual",
) -> Round:
    """Open a round over images of the small dataset."""
    tasks = tuple(
        TaskSpec(image_id=each, height=SIDE, width=SIDE, overlap=overlap, prefill=prefill, gold=gold) for each in images
    )
    return workspace.rounds.open(RoundSpec(stage=stage, tasks=tasks))


def answer(workspace: Workspace, lease: Lease, *, squares: int = 2, shift: int = 0, seconds: float = 4.0) -> None:
    """Make some squares, `seconds` of work each, and submit them."""
    page = Page(base=lease.revision, session=f"page-{lease.token[:8]}")
    inputs: list[list[object]] = [[0.0, None]]
    for number in range(squares):
        click = {"x": 10.0 + number, "y": 7.0, "positive": True}
        payload = made(f"m{number}", square(number * 4 + shift), clicks=1, prompts=[click], model_id="seed-1")
        workspace.operations.append(lease.token, [page("add", payload)])
        inputs.append([(number + 1) * seconds, f"m{number}"])
    workspace.operations.append(lease.token, [page("activity", {"inputs": inputs})])
    workspace.submissions.submit(lease.token, page.base)


def answer_all(workspace: Workspace, name: str, *, squares: int = 2, shift: int = 0) -> int:
    """Answer every task that is left for an annotator; return their number."""
    done = 0
    while leases := workspace.leases.claim(name):
        answer(workspace, leases[0], squares=squares, shift=shift)
        done += 1
    return done
