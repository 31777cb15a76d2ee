"""A crew of simulated annotators against a real server: it answers its round, and leaves everything else alone."""

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from stages.annotator.access import Mode
from stages.annotator.app import make_app
from stages.annotator.serve import ServeConfig, listen, open_server
from stages.ingest.ingest import ingest_photos
from stages.simulated.annotator import SimulatedAnnotator
from stages.simulated.behaviour import Behaviour
from stages.simulated.client import Client, Log
from stages.simulated.crew import CrewConfig, simulate_round
from stages.simulated.truth import Views
from storage import rle
from storage.dataset import Dataset
from storage.workspace.records import Round, RoundSpec, TaskSpec
from storage.workspace.workspace import Workspace
from tests.workspaces import rectangle

QUICK = CrewConfig(behaviour=Behaviour(pace=1e6, max_clicks=2, skip_fraction=0, hand_back_fraction=0))
PASSWORD = "correct horse battery"


@pytest.fixture
def filled(dataset: Dataset, photo_folder: Path) -> Dataset:
    ingest_photos([photo_folder], dataset)
    dataset.fold()
    return dataset


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace.sqlite") as opened:
        opened.users.add("lead", "lead", password=PASSWORD)
        yield opened


@contextmanager
def serving(dataset: Dataset, workspace: Workspace, model: Path, mode: Mode = "team") -> Iterator[str]:
    """A server in a thread, as `gigamask annotate` starts it; its address."""
    cache = Path(dataset.uri).parent / "cache"
    with listen(ServeConfig(port=0, mode=mode)) as listening:
        config = ServeConfig(port=listening.getsockname()[1], mode=mode)
        with open_server(dataset, workspace, [str(model)], cache, config) as opened:
            server = uvicorn.Server(uvicorn.Config(make_app(opened), log_level="warning"))
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            while not server.started:
                time.sleep(0.01)
            try:
                yield config.url
            finally:
                server.should_exit = True
                thread.join()


def open_round(dataset: Dataset, workspace: Workspace, *, images: int, overlap: int = 1) -> Round:
    rows = dataset.query(f"SELECT image_id, height, width FROM images ORDER BY image_id LIMIT {images}").to_pylist()
    tasks = tuple(TaskSpec(**row, overlap=overlap) for row in rows)
    return workspace.rounds.open(RoundSpec(stage="assisted_manual", tasks=tasks))


def truth_of(workspace: Workspace, opened: Round, *, known: int) -> Mapping[int, Views]:
    """Ground truth of the first images of a round: one object, seen by one person."""
    tasks = workspace.rounds.tasks(opened.round_id)[:known]
    return {task.image_id: [[_object(task.height, task.width)]] for task in tasks}


def _object(height: int, width: int) -> rle.Rle:
    small_HW = rle.decode(rectangle())
    mask_HW = small_HW.repeat(height // small_HW.shape[0] + 1, 0).repeat(width // small_HW.shape[1] + 1, 1)
    return rle.encode(mask_HW[:height, :width])


def test_a_crew_answers_its_round_and_no_other_and_closes_its_accounts(
    filled: Dataset, workspace: Workspace, tiny_model: Path
) -> None:
    other, opened = (open_round(filled, workspace, images=count, overlap=2) for count in (2, 3))
    truth = truth_of(workspace, opened, known=2)
    with serving(filled, workspace, tiny_model) as url:
        for _ in range(2):  # the second time nothing is left to do
            done = simulate_round(workspace, opened.round_id, truth, url, QUICK)
            assert (done.simulated_answers, done.skips, done.free, done.without_truth) == (4, 2, 2, 1)
    assert workspace.rounds.progress(other.round_id).done == 0
    assert {user.name for user in workspace.users.read_all() if user.disabled} == {"simulated-1", "simulated-2"}
    for submission in workspace.submissions.read(round_id=opened.round_id):
        line = workspace.operations.read(submission.task_id, submission.annotator)
        assert [each.payload["simulated"] for each in line if each.kind == "activity"] == [True]


class _SlowTruth(dict[int, Views]):
    """Ground truth that is looked up only once `go` is set; `asked` tells that somebody waits for it."""

    def __init__(self, truth: Mapping[int, Views]) -> None:
        super().__init__(truth)
        self.asked, self.go = threading.Event(), threading.Event()

    def get(self, image_id: int, default: Views | None = None) -> Views | None:  # type: ignore[override]
        self.asked.set()
        self.go.wait()
        return super().get(image_id, default)


def test_two_crews_at_once_have_accounts_of_their_own_and_both_end_well(
    filled: Dataset, workspace: Workspace, tiny_model: Path
) -> None:
    first, second = (open_round(filled, workspace, images=2) for _ in range(2))
    slow = _SlowTruth(truth_of(workspace, first, known=2))
    with serving(filled, workspace, tiny_model) as url, ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(simulate_round, workspace, first.round_id, slow, url, QUICK)
        try:
            while not slow.asked.wait(1):
                assert not under_way.done(), under_way.exception()
            truth = truth_of(workspace, second, known=2)
            assert simulate_round(workspace, second.round_id, truth, url, QUICK).simulated_answers == 2
        finally:
            slow.go.set()
        assert under_way.result().simulated_answers == 2
    crews = [
        {each.annotator for each in workspace.submissions.read(round_id=opened.round_id)} for opened in (first, second)
    ]
    assert crews[0] <= {"simulated-1", "simulated-2"}
    assert crews[1] <= {"simulated-3", "simulated-4"}
    assert [user.name for user in workspace.users.read_all() if not user.disabled] == ["lead"]


def test_an_attempt_that_was_cut_off_leaves_no_trace_in_the_masks_of_the_next(
    filled: Dataset, workspace: Workspace, tiny_model: Path, tmp_path: Path
) -> None:
    cut_off, undisturbed = (open_round(filled, workspace, images=1) for _ in range(2))
    (task,) = workspace.rounds.tasks(cut_off.round_id)
    left_HW = np.zeros((task.height, task.width), np.bool_)
    left_HW[4:40, 4:40] = True
    truth = [rle.encode(left_HW), rle.encode(left_HW[:, ::-1])]
    workspace.users.add("ann", "annotator", password=PASSWORD)

    def work(url: str, round_id: str, *, stops_after: int | None) -> None:
        stop, log = threading.Event(), Log(tmp_path / "log.jsonl")

        class Sending(Client):
            def post(self, path: str, body: Mapping[str, Any], **parameters: str | int) -> Any:
                answer = super().post(path, body, **parameters)
                sent.append(path)
                if sent.count("/api/operations") == stops_after:
                    stop.set()
                return answer

        sent: list[str] = []
        client = Sending(url, "ann", PASSWORD, log, stop=stop)
        rng = np.random.default_rng()
        SimulatedAnnotator(
            client, lambda image_id: truth, QUICK.behaviour, rng=rng, stop=stop, round_id=round_id, task_seed=[7]
        ).work(max_tasks=1)
        client.close()
        log.close()

    with serving(filled, workspace, tiny_model) as url:
        work(url, cut_off.round_id, stops_after=1)
        assert workspace.submissions.read(round_id=cut_off.round_id) == []
        (lease,) = workspace.leases.held("ann")
        assert workspace.operations.read(lease.task.task_id, "ann"), "it began"
        for opened in (cut_off, undisturbed):
            work(url, opened.round_id, stops_after=None)
    masks = []
    for opened in (cut_off, undisturbed):
        (submission,) = workspace.submissions.read(round_id=opened.round_id)
        state = workspace.operations.state(submission.task_id, "ann")
        masks.append([each.rle.counts.tobytes() for each in state.masks])
    assert masks[0] == masks[1]
    assert len(masks[0]) == 2


def test_wrong_use_is_said_before_anybody_works(filled: Dataset, workspace: Workspace, tiny_model: Path) -> None:
    opened = open_round(filled, workspace, images=2)
    truth = truth_of(workspace, opened, known=2)
    with pytest.raises(ValueError, match="none of its 2 images has ground truth"):
        simulate_round(workspace, opened.round_id, {}, "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9: no annotation server answers there .*annotate --team"):
        simulate_round(workspace, opened.round_id, truth, "http://127.0.0.1:9")
    with serving(filled, workspace, tiny_model, "laptop") as url:
        with pytest.raises(ValueError, match=r"refused a simulated annotator: .*expected a server with accounts"):
            simulate_round(workspace, opened.round_id, truth, url, QUICK)
        workspace.rounds.pause(opened.round_id)
        with pytest.raises(ValueError, match="is paused; expected an open round"):
            simulate_round(workspace, opened.round_id, truth, url, QUICK)
    assert workspace.submissions.read(round_id=opened.round_id) == []


def test_a_server_of_another_workspace_is_refused(
    filled: Dataset, workspace: Workspace, tiny_model: Path, tmp_path: Path
) -> None:
    opened = open_round(filled, workspace, images=1)
    truth = truth_of(workspace, opened, known=1)
    with Workspace.open(tmp_path / "other.sqlite") as other:
        other.users.add("lead", "lead", password=PASSWORD)
        with serving(filled, other, tiny_model) as url, pytest.raises(ValueError, match="workspace of this round"):
            simulate_round(workspace, opened.round_id, truth, url, QUICK)
