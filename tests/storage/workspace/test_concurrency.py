"""Many processes at one workspace: real processes, which share nothing but the database."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing.synchronize import Barrier

import pytest
from sqlalchemy import event

from storage.errors import InvalidInput
from storage.workspace.records import ClientRequest, RoundSpec, Submission, TaskSpec
from storage.workspace.tasks import ImagesTaken
from storage.workspace.workspace import Workspace
from tests.workspaces import HEIGHT, WIDTH, Page, made, open_round, operation

pytestmark = pytest.mark.slow
SPAWN = multiprocessing.get_context("spawn")


def claim_all(place: str, name: str, barrier: Barrier, results: "multiprocessing.Queue[list[tuple[int, str]]]") -> None:
    with Workspace.open(place, max_held=1000) as workspace:
        barrier.wait(60)
        claimed = []
        while leases := workspace.leases.claim(name, 2):
            claimed += [(lease.task.task_id, lease.token) for lease in leases]
        results.put(claimed)


def append_same(place: str, token: str, session: str, barrier: Barrier) -> None:
    with Workspace.open(place) as workspace:
        page = Page(session=session)
        barrier.wait(60)
        for number in range(10):
            each = page("add", made(f"{session}-{number}"))
            workspace.operations.append(token, [each])
            workspace.operations.append(token, [each])


def open_at_once(place: str, barrier: Barrier) -> None:
    barrier.wait(60)
    Workspace.open(place).close()


def open_and_extend(
    place: str, number: int, barrier: Barrier, results: "multiprocessing.Queue[tuple[str, bool, int]]"
) -> None:
    """Open a round and extend it, each by the same request as the other processes, but over images of its own."""
    tasks = tuple(TaskSpec(image_id=10 * number + each, height=HEIGHT, width=WIDTH) for each in range(1, 6))
    with Workspace.open(place) as workspace:
        barrier.wait(60)
        spec = RoundSpec(stage="assisted_manual", tasks=tasks[:3])
        opened, is_new = workspace.rounds.open_once(spec, ClientRequest(request_id="first", content={"images": 3}))
        barrier.wait(60)
        request = ClientRequest(request_id="second", content={"images": 2})
        results.put((opened.round_id, is_new, workspace.rounds.extend(opened.round_id, tasks[3:], request=request)))


def take_first_free(place: str, barrier: Barrier, results: "multiprocessing.Queue[list[int]]") -> None:
    """Open a round over the two lowest images that no round has, and add a third; all choose before one takes."""
    with Workspace.open(place) as workspace:

        def choose(count: int) -> tuple[TaskSpec, ...]:
            free = sorted(set(range(20)) - workspace.rounds.asked_about())[:count]
            return tuple(TaskSpec(image_id=each, height=HEIGHT, width=WIDTH) for each in free)

        tasks = choose(2)
        barrier.wait(60)
        while True:
            try:
                opened, _ = workspace.rounds.open_once(
                    RoundSpec(stage="assisted_manual", tasks=tasks), None, alone=True
                )
                break
            except ImagesTaken:
                tasks = choose(2)
        more = choose(1)
        barrier.wait(60)
        while True:
            try:
                assert workspace.rounds.extend(opened.round_id, more, alone=True) == 1
                break
            except ImagesTaken:
                more = choose(1)
        results.put([task.image_id for task in workspace.rounds.tasks(opened.round_id)])


def run(processes: list[multiprocessing.context.SpawnProcess]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_twenty_claimers_never_get_the_same_slot(place: str) -> None:
    names = [f"annotator-{number}" for number in range(20)]
    with Workspace.open(place) as workspace:
        for name in names:
            workspace.users.add(name, "annotator")
        open_round(workspace, images=60)
        shared = open_round(workspace, images=5, overlap=4, first=1000)
        overlapped = {task.task_id for task in workspace.rounds.tasks(shared.round_id)}
    barrier, results = SPAWN.Barrier(len(names)), SPAWN.Queue()
    processes = [SPAWN.Process(target=claim_all, args=(place, name, barrier, results)) for name in names]
    for process in processes:
        process.start()
    claims = [results.get(timeout=200) for _ in processes]
    for process in processes:
        process.join(60)

    taken = Counter(task for claimed in claims for task, _ in claimed)
    assert len(taken) == 65
    assert all(count == (4 if task in overlapped else 1) for task, count in taken.items())
    assert all(len({task for task, _ in claimed}) == len(claimed) for claimed in claims)
    tokens = [token for claimed in claims for _, token in claimed]
    assert len(set(tokens)) == len(tokens) == 80


def test_two_pages_writing_at_once_lose_nothing_and_double_nothing(place: str) -> None:
    with Workspace.open(place) as workspace:
        workspace.users.add("ann", "annotator")
        open_round(workspace, images=1)
        (lease,) = workspace.leases.claim("ann")
        barrier = SPAWN.Barrier(4)
        run(
            [SPAWN.Process(target=append_same, args=(place, lease.token, f"s{number}", barrier)) for number in range(4)]
        )
        task_id = lease.task.task_id
        main = workspace.operations.read(task_id, "ann")
        branches = workspace.operations.branches(task_id)
        names = Counter(each.payload["mask"] for each in main)
        for branch in branches:
            late = workspace.operations.read(task_id, "ann", branch=branch.branch)
            names.update(each.payload["mask"] for each in late if each.branch)
        assert names == {f"s{session}-{number}": 1 for session in range(4) for number in range(10)}
        assert [each.revision for each in main] == list(range(1, len(main) + 1))


def test_one_request_sent_by_six_processes_at_once_opens_and_extends_one_round(place: str) -> None:
    Workspace.open(place).close()
    barrier, results = SPAWN.Barrier(6), SPAWN.Queue()
    run([SPAWN.Process(target=open_and_extend, args=(place, number, barrier, results)) for number in range(6)])
    answers = [results.get(timeout=60) for _ in range(6)]
    with Workspace.open(place) as workspace:
        (found,) = workspace.rounds.read_all()
        assert {round_id for round_id, _, _ in answers} == {found.round_id}
        assert sum(is_new for _, is_new, _ in answers) == 1
        assert {added for _, _, added in answers} == {2}
        assert len(workspace.rounds.tasks(found.round_id)) == 5


def test_rounds_opened_and_extended_at_once_share_no_image(place: str) -> None:
    Workspace.open(place).close()
    barrier, results = SPAWN.Barrier(2), SPAWN.Queue()
    run([SPAWN.Process(target=take_first_free, args=(place, barrier, results)) for _ in range(2)])
    taken = [image for _ in range(2) for image in results.get(timeout=60)]
    assert sorted(taken) == list(range(6))


def test_processes_that_open_an_empty_place_at_once_create_it_once(place: str) -> None:
    barrier = SPAWN.Barrier(6)
    run([SPAWN.Process(target=open_at_once, args=(place, barrier)) for _ in range(6)])
    with Workspace.open(place) as workspace:
        assert workspace.rounds.read_all() == []


def test_a_writer_killed_in_the_middle_leaves_whole_calls_only(place: str) -> None:
    with Workspace.open(place) as workspace:
        workspace.users.add("ann", "annotator")
        open_round(workspace, images=1)
        (lease,) = workspace.leases.claim("ann")
        for _ in range(3):
            process = SPAWN.Process(target=append_pairs, args=(place, lease.token))
            process.start()
            time.sleep(2.5)
            process.kill()
            process.join()
        state = workspace.operations.state(lease.task.task_id, "ann")
        names = [mask.mask for mask in state.masks]
        assert names
        assert {name[:-2] for name in names if name.endswith("-a")} == {
            name[:-2] for name in names if name[-2:] == "-b"
        }
        workspace.operations.append(lease.token, [operation("add", made("after"), base=state.revision, session="x")])


def test_a_reviewer_and_a_lead_who_meet_do_not_wait_for_each_other(new_postgresql: Callable[[], str]) -> None:
    place = new_postgresql()
    with Workspace.open(place) as workspace, Workspace.open(place) as of_lead, ThreadPoolExecutor(1) as pool:
        workspace.users.add("ann", "annotator")
        opened = open_round(workspace, images=1)
        (lease,) = workspace.leases.claim("ann")
        submission = workspace.submissions.submit(lease.token, 0)
        withdrawals: list[Future[list[Submission]]] = []

        @event.listens_for(workspace.database.engine, "before_cursor_execute")
        def let_the_lead_go_first(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "FOR SHARE" in statement:
                withdrawals.append(pool.submit(of_lead.submissions.withdraw, opened.round_id, "ann", actor="lea"))
                wait(withdrawals, timeout=1)

        with pytest.raises(InvalidInput, match="is withdrawn"):
            workspace.submissions.accept(submission.submission_id, actor="rita")
        assert [each.submission_id for each in withdrawals[0].result()] == [submission.submission_id]


def append_pairs(place: str, token: str) -> None:
    with Workspace.open(place) as workspace:
        lease = workspace.leases.get(token)
        page = Page(base=lease.revision, session=f"from-{lease.revision}")
        number = lease.revision
        while True:
            workspace.operations.append(token, [page("add", made(f"{number}-a")), page("add", made(f"{number}-b"))])
            number += 1
