"""What is left of a round: the count of what somebody can claim equals what people who try can claim."""

import random

import pytest

from storage.workspace.workspace import Workspace
from tests.workspaces import open_round

PEOPLE = ("ann", "bob", "rita", "lea")


def claim_all(workspace: Workspace, names: tuple[str, ...]) -> int:
    """Let people claim until nobody gets a task; return how many they got."""
    claimed = 0
    while got := sum(len(workspace.leases.claim(name, 1)) for name in names):
        claimed += got
    return claimed


@pytest.mark.parametrize("seed", range(3))
def test_as_many_slots_are_claimable_as_people_can_claim(workspace: Workspace, seed: int) -> None:
    workspace.leases.max_held = 1000
    rng = random.Random(seed)
    opened = open_round(workspace, images=12, overlap=2 + seed)
    away = rng.choice(PEOPLE)
    for _ in range(16):
        for lease in workspace.leases.claim(rng.choice(PEOPLE), rng.randrange(1, 4)):
            act = rng.choice(("skip", "skip", "skip", "skip", "submit", "hand back", "hold"))
            if act == "skip":
                workspace.leases.skip(lease.token, "dark")
            elif act == "submit":
                workspace.submissions.submit(lease.token, 0)
            elif act == "hand back":
                workspace.leases.hand_back(lease.token)
    workspace.users.disable(away)
    progress = workspace.rounds.progress(opened.round_id)
    assert progress.claimable == claim_all(workspace, tuple(name for name in PEOPLE if name != away))
    assert workspace.rounds.progress(opened.round_id).claimable == 0
    assert 0 < progress.claimable < progress.free, "the round has slots of both kinds, or the test shows nothing"


def test_a_task_that_was_sent_back_is_claimable_by_who_did_it(workspace: Workspace) -> None:
    opened = open_round(workspace, images=1)
    for name in ("bob", "rita", "lea"):
        (lease,) = workspace.leases.claim(name)
        workspace.leases.skip(lease.token, "dark")
    (lease,) = workspace.leases.claim("ann")
    submission = workspace.submissions.submit(lease.token, 0)
    assert workspace.rounds.progress(opened.round_id).claimable == 0
    workspace.submissions.send_back(submission.submission_id, "leaks", actor="rita")
    assert workspace.rounds.progress(opened.round_id).claimable == 1
    assert claim_all(workspace, ("ann",)) == 1


def test_before_there_is_an_account_every_slot_is_claimable_by_who_comes(place: str) -> None:
    with Workspace.open(place) as workspace:
        opened = open_round(workspace, images=2, overlap=3)
        assert workspace.rounds.progress(opened.round_id).claimable == 6
        workspace.users.add("ann", "annotator")
        assert workspace.rounds.progress(opened.round_id).claimable == 2
