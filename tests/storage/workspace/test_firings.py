"""Firings on SQLite and PostgreSQL: each key starts work once, and killed work may be taken again."""

import threading

from storage.workspace.firings import MAX_ATTEMPTS, FiringState
from storage.workspace.workspace import Workspace


def test_of_many_schedulers_one_takes_a_key(workspace: Workspace) -> None:
    place = workspace.database.engine.url.render_as_string(hide_password=False)
    barrier, tokens = threading.Barrier(6), list[str | None]()

    def schedule() -> None:
        with Workspace.open(place) as opened:
            barrier.wait()
            tokens.append(opened.firings.take("retraining", "cron:2026-01-01T02:00", "scheduler"))

    threads = [threading.Thread(target=schedule) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 6
    (token,) = filter(None, tokens)
    (firing,) = workspace.firings.read_all("retraining")
    assert (firing.token, firing.state, firing.attempts) == (token, FiringState.RUNNING, 1)


def test_a_key_that_is_done_stays_done_and_keeps_its_result(workspace: Workspace) -> None:
    token = workspace.firings.take("verify", "a", "first")
    assert token is not None
    assert workspace.firings.end(token, {"faults": 0})
    assert workspace.firings.take("verify", "a", "second") is None
    found = workspace.firings.find("verify", "a")
    assert found is not None
    assert (found.state, found.result, found.owner) == (FiringState.DONE, {"faults": 0}, "first")
    assert found.ended_at is not None
    assert workspace.firings.find("verify", "b") is None


def test_one_firing_of_a_job_runs_at_a_time_and_other_jobs_do_not_wait(workspace: Workspace) -> None:
    first = workspace.firings.take("retraining", "cron:1", "a")
    assert first is not None
    assert workspace.firings.take("retraining", "masks:100", "b") is None
    assert workspace.firings.find("retraining", "masks:100") is None, "the key is left for later"
    assert workspace.firings.take("verify", "cron:1", "b") is not None
    workspace.firings.end(first, {})
    assert workspace.firings.take("retraining", "masks:100", "b") is not None


def test_killed_work_is_lost_and_may_be_taken_again_a_few_times(workspace: Workspace) -> None:
    take = workspace.firings.take
    first = take("retraining", "k", "killed", lease_s=-1)
    assert [each.key for each in workspace.firings.lost()] == ["k"]
    second = take("retraining", "k", "next", lease_s=-1)
    assert first is not None
    assert second not in (None, first)
    assert not workspace.firings.extend(first), "the first has lost its lease"
    assert not workspace.firings.end(first, {"model": "late"})
    for _ in range(MAX_ATTEMPTS - 2):
        assert take("retraining", "k", "next", lease_s=-1) is not None
    assert take("retraining", "k", "one too many") is None
    assert workspace.firings.lost() == []
    assert workspace.firings.find("retraining", "k").state is FiringState.LOST


def test_a_lost_firing_does_not_hold_up_the_next_key(workspace: Workspace) -> None:
    workspace.firings.take("retraining", "old", "killed", lease_s=-1)
    assert workspace.firings.take("retraining", "new", "next") is not None
    assert [each.state for each in workspace.firings.read_all()] == [FiringState.LOST, FiringState.RUNNING]


def test_whether_a_key_can_be_taken_is_known_without_taking_it(workspace: Workspace) -> None:
    firings = workspace.firings
    assert firings.can_take("engine", "close:1")
    assert firings.read_all() == []
    token = firings.take("engine", "close:1", "a")
    assert not firings.can_take("engine", "close:1")
    assert not firings.can_take("engine", "close:2"), "one firing of a job runs at a time"
    assert firings.can_take("masks", "close:1")
    firings.end(token, {"error": "busy"}, failed=True)
    assert not firings.can_take("engine", "close:1")
    assert firings.can_take("engine", "close:1", retry_s=-1)
    assert firings.can_take("engine", "close:2")
    firings.take("engine", "close:1", "killed", retry_s=-1, lease_s=-1)
    assert firings.can_take("engine", "close:1")
    firings.end(firings.take("engine", "close:1", "b"), {})
    assert not firings.can_take("engine", "close:1", retry_s=-1), "it is done"


def test_failed_work_is_tried_again_after_a_while(workspace: Workspace) -> None:
    token = workspace.firings.take("retraining", "k", "a")
    assert token is not None
    workspace.firings.end(token, {"error": "too few images"}, failed=True)
    assert workspace.firings.take("retraining", "k", "b") is None
    again = workspace.firings.take("retraining", "k", "b", retry_s=-1)
    assert again is not None
    assert workspace.firings.extend(again)
    assert workspace.firings.find("retraining", "k").attempts == 2
    assert workspace.firings.find("retraining", "k").result == {}  # that of the attempt before is no news


def test_work_that_was_stopped_on_purpose_may_be_taken_at_once_and_as_often_as_wanted(workspace: Workspace) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        token = workspace.firings.take("retraining", "k", "a")
        assert token is not None
        workspace.firings.release(token)
    assert [each.key for each in workspace.firings.lost()] == ["k"]
