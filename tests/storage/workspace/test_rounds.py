import pytest

from storage.errors import NotFound
from storage.workspace.records import GivenMask, RoundSpec, RoundState, TaskSpec
from storage.workspace.sharing import OtherIsClosing
from storage.workspace.withdrawals import Withdrawal, withdrawals_of
from storage.workspace.workspace import Workspace
from tests.workspaces import HEIGHT, WIDTH, Page, made, open_round, rectangle


def image(number: int, **more: object) -> TaskSpec:
    return TaskSpec(image_id=number, height=HEIGHT, width=WIDTH, **more)


def test_a_round_keeps_its_images_masks_and_settings(workspace: Workspace) -> None:
    gold = (GivenMask(mask="g", rle=rectangle(), source="7/8"),)
    prefill = (GivenMask(mask="b", rle=rectangle(1)), GivenMask(mask="a", rle=rectangle(2), stability_score=0.5))
    spec = RoundSpec(
        stage="semi_automatic",
        tasks=(image(2**62, prefill=prefill), image(5, gold=gold, overlap=3)),
        guidelines="by prominence",
        settings={"model": "seed"},
    )
    opened = workspace.rounds.open(spec, actor="lea")
    assert (opened.state, opened.created_by, opened.settings) == (RoundState.OPEN, "lea", {"model": "seed"})
    first, second = workspace.rounds.tasks(opened.round_id)
    assert [first.image_id, second.image_id, first.gold, second.gold] == [2**62, 5, False, True]
    assert workspace.rounds.prefill(first.task_id) == prefill
    assert workspace.rounds.gold(second.task_id) == gold
    progress = workspace.rounds.progress(opened.round_id)
    assert (progress.tasks, progress.slots, progress.free) == (2, 4, 4)


def test_progress_counts_slots_by_what_became_of_them(workspace: Workspace) -> None:
    opened = open_round(workspace, images=4)
    for lease, finish in zip(workspace.leases.claim("ann", 3), (True, False, None), strict=True):
        if finish:
            workspace.submissions.submit(lease.token, 0)
        elif finish is False:
            workspace.leases.skip(lease.token, "dark")
    progress = workspace.rounds.progress(opened.round_id)
    assert (progress.done, progress.leased, progress.free, progress.skips) == (1, 1, 2, 1)


def test_extending_adds_new_images_only(workspace: Workspace) -> None:
    opened = open_round(workspace, images=2)
    assert workspace.rounds.extend(opened.round_id, [image(2), image(3)]) == 1
    assert [task.image_id for task in workspace.rounds.tasks(opened.round_id)] == [1, 2, 3]


def test_a_cancelled_round_can_be_reopened_a_closed_one_cannot(workspace: Workspace) -> None:
    opened = open_round(workspace)
    workspace.rounds.cancel(opened.round_id)
    assert workspace.leases.claim("ann") == []
    with pytest.raises(ValueError, match="is cancelled; expected open or paused"):
        workspace.rounds.pause(opened.round_id)
    workspace.rounds.reopen(opened.round_id)
    assert len(workspace.leases.claim("ann")) == 1
    workspace.rounds.begin_closing(opened.round_id)
    workspace.rounds.end_closing(opened.round_id)
    with pytest.raises(ValueError, match="is closed; expected"):
        workspace.rounds.reopen(opened.round_id)


def test_a_round_that_is_being_closed_takes_no_more_submissions(workspace: Workspace) -> None:
    opened = open_round(workspace)
    (lease,) = workspace.leases.claim("ann")
    workspace.rounds.begin_closing(opened.round_id)
    with pytest.raises(ValueError, match="is closing; expected open or paused"):
        workspace.submissions.submit(lease.token, 0)


def test_the_first_plan_of_a_round_is_its_plan(workspace: Workspace) -> None:
    opened = open_round(workspace)
    workspace.rounds.begin_closing(opened.round_id)
    stored: list[str] = []

    def store() -> str:
        stored.append(f"masks-{len(stored) + 1}")
        return stored[-1]

    assert [workspace.rounds.set_plan(opened.round_id, store) for _ in range(2)] == ["masks-1", "masks-1"]
    assert stored == ["masks-1"], "no plan is stored in vain"


def test_closing_waits_for_a_round_with_the_same_images(workspace: Workspace) -> None:
    first, second, apart = (open_round(workspace, images=2, first=number) for number in (1, 2, 7))
    workspace.rounds.begin_closing(first.round_id)
    workspace.rounds.begin_closing(apart.round_id)
    for _ in range(2):
        with pytest.raises(OtherIsClosing, match=f"{second.round_id} has images of round {first.round_id}") as refused:
            workspace.rounds.begin_closing(second.round_id)
        assert refused.value.other == first.round_id
    assert workspace.rounds.get(second.round_id).state is RoundState.OPEN
    workspace.rounds.end_closing(first.round_id)
    assert workspace.rounds.begin_closing(second.round_id).state is RoundState.CLOSING
    assert workspace.rounds.sharing(second.round_id, (RoundState.CLOSED,)) == [first.round_id]


def test_a_withdrawal_from_a_closed_round_closes_it_once_more_and_gets_one_plan(workspace: Workspace) -> None:
    opened = open_round(workspace)
    with pytest.raises(ValueError, match="is open; expected closed"):
        workspace.rounds.begin_withdrawal(opened.round_id, "ann", "careless")
    workspace.rounds.begin_closing(opened.round_id)
    closed = workspace.rounds.end_closing(opened.round_id)
    assert workspace.rounds.begin_withdrawal(opened.round_id, "ann", "careless", actor="lea")
    assert not workspace.rounds.begin_withdrawal(opened.round_id, "ann", "again"), "the first reason counts"
    assert workspace.rounds.get(opened.round_id).state is RoundState.CLOSING
    with pytest.raises(ValueError, match="is closing; expected closed"):
        workspace.rounds.begin_withdrawal(opened.round_id, "bob", "careless")
    plans = iter(("", "amendments-2"))
    for _ in range(2):
        assert workspace.rounds.set_withdrawal_plan(opened.round_id, "ann", lambda: next(plans)) == ""
    ended = workspace.rounds.end_closing(opened.round_id)
    assert (ended.state, ended.closed_at) == (RoundState.CLOSED, closed.closed_at)
    assert withdrawals_of(ended) == [Withdrawal(annotator="ann", reason="careless", plan_id="")]
    entry = next(each for each in workspace.audit_log(newest=9) if each.action == "withdraw from closed round")
    assert (entry.actor, entry.details) == ("lea", {"annotator": "ann", "reason": "careless"})


def test_what_closing_would_leave_out_is_counted(workspace: Workspace) -> None:
    opened = open_round(workspace, images=5, overlap=2, prefill=2)
    first, second, third = workspace.leases.claim("ann", 3)
    workspace.submissions.submit(first.token, 0)
    page = Page()
    workspace.operations.append(second.token, [page("add", made("m")), page("reject", {"mask": "p1"})])
    workspace.leases.skip(third.token, "dark")
    unfinished = workspace.rounds.unfinished(opened.round_id)
    assert (unfinished.answers, unfinished.held, unfinished.free) == (1, 1, 8)
    assert (unfinished.drafted_tasks, unfinished.drafted_masks) == (1, 2)
    workspace.leases.hand_back(second.token)
    assert workspace.rounds.unfinished(opened.round_id).loses_work, "a draft stays one when its lease has ended"
    workspace.submissions.send_back(workspace.submissions.read()[0].submission_id, "leaks", actor="rita")
    assert workspace.rounds.unfinished(opened.round_id).answers == 0


def test_malformed_rounds_are_refused(workspace: Workspace) -> None:
    for tasks, problem in (
        ((), "no images"),
        ((image(1), image(1)), "an image twice"),
        ((image(1, overlap=0),), "overlap 0"),
        ((TaskSpec(image_id=1, height=9, width=9, prefill=(GivenMask(mask="a", rle=rectangle()),)),), "12 x 16"),
    ):
        with pytest.raises(ValueError, match=problem):
            workspace.rounds.open(RoundSpec(stage="assisted_manual", tasks=tasks))
    with pytest.raises(ValueError, match="stage 'other'"):
        workspace.rounds.open(RoundSpec(stage="other", tasks=(image(1),)))
    with pytest.raises(NotFound, match="no such round"):
        workspace.rounds.get("round-x")
    assert workspace.rounds.read_all() == []
