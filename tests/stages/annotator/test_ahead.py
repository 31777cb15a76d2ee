"""Embeddings ahead of the queue: which images, in which order, and that a first click finds them."""

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from stages.annotator.ahead import AheadOfQueue, Embeddings, PictureEncoder, ToEncode
from stages.annotator.config import SessionsConfig
from stages.annotator.sessions import Sessions
from stages.cluster.calls import call_on_pool
from stages.cluster.pool import PoolConfig
from storage.dataset import Dataset
from storage.workspace.records import RoundSpec, TaskSpec
from storage.workspace.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace.sqlite") as opened:
        opened.users.add("ann", "annotator")
        yield opened


@pytest.fixture
def fresh(annotated: Dataset, tiny_model: Path, tmp_path: Path) -> Iterator[Sessions]:
    """A server's sessions with an empty cache."""
    opened = Sessions(annotated, [str(tiny_model)], tmp_path / "cache", SessionsConfig())
    yield opened
    opened.close()


class InProcess:
    """Encodes in this process, and notes what it was asked for; one image can fail."""

    def __init__(self, dataset: Dataset, model: Path, *, failing: int | None = None) -> None:
        self._encoder = PictureEncoder(dataset.uri, [str(model)])
        self.asked: list[list[int]] = []
        self.failing = failing

    def __call__(self, wanted: Sequence[ToEncode]) -> Iterator[tuple[ToEncode, Embeddings | Exception]]:
        self.asked.append([each.image_id for each in wanted])
        for each in wanted:
            yield each, ValueError("damaged") if each.image_id == self.failing else self._encoder(each)


def open_round(workspace: Workspace, image_ids: Sequence[int], *, priority: int = 0, model: str = "") -> str:
    tasks = tuple(TaskSpec(image_id=each, height=64, width=96) for each in image_ids)
    spec = RoundSpec(stage="assisted_manual", tasks=tasks, priority=priority, settings={"model": model})
    return workspace.rounds.open(spec).round_id


def ahead_of(annotated: Dataset, workspace: Workspace, fresh: Sessions, encode: InProcess) -> AheadOfQueue:
    """Without its thread: the test looks itself."""
    return AheadOfQueue(annotated, workspace, fresh.models, fresh.encoder.cache, encode)


def test_images_are_encoded_in_the_order_of_the_queue_once(
    annotated: Dataset, workspace: Workspace, fresh: Sessions, tiny_model: Path, image_ids: list[int]
) -> None:
    encode = InProcess(annotated, tiny_model)
    ahead = ahead_of(annotated, workspace, fresh, encode)
    open_round(workspace, [image_ids[0], image_ids[1]])
    open_round(workspace, [image_ids[3], image_ids[2]], priority=1)
    paused = open_round(workspace, [image_ids[4]])
    open_round(workspace, [image_ids[5]], model="a model that this server has not")
    workspace.rounds.pause(paused)
    assert ahead.look() == 4
    assert encode.asked == [[image_ids[3], image_ids[2], image_ids[0], image_ids[1]]]
    for image_id in image_ids[:4]:
        opened = fresh.open(image_id)
        assert fresh.encoder.is_ready(opened.picture, opened.model)
        assert fresh.prepare(image_id)
    assert ahead.look() == 0
    assert len(encode.asked) == 1


def test_answered_tasks_and_failed_images_are_not_asked_for(
    annotated: Dataset,
    workspace: Workspace,
    fresh: Sessions,
    tiny_model: Path,
    image_ids: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    encode = InProcess(annotated, tiny_model, failing=image_ids[1])
    ahead = ahead_of(annotated, workspace, fresh, encode)
    open_round(workspace, image_ids[:3])
    (lease,) = workspace.leases.claim("ann")
    workspace.submissions.submit(lease.token, 0)
    with caplog.at_level(logging.WARNING):
        assert ahead.look() == 1
    assert "could not be encoded ahead: damaged" in caplog.text
    assert encode.asked == [image_ids[1:3]]
    assert ahead.missing() == []


@pytest.mark.slow
def test_a_ray_pool_makes_the_embeddings_that_the_server_would_make(
    annotated: Dataset, workspace: Workspace, fresh: Sessions, tiny_model: Path, image_ids: list[int]
) -> None:
    open_round(workspace, image_ids[:3])
    pool = PoolConfig(workers=1, threads=1)
    encode = partial(call_on_pool, partial(PictureEncoder, annotated.uri, [str(tiny_model)]), config=pool)
    ahead = AheadOfQueue(annotated, workspace, fresh.models, fresh.encoder.cache, encode, every_s=0.1)
    ahead.start()
    while ahead.missing():
        time.sleep(0.1)
    ahead.close()
    for image_id in image_ids[:3]:
        opened = fresh.open(image_id)
        for window, found in PictureEncoder(annotated.uri, [str(tiny_model)])(
            ToEncode(image_id=image_id, model_id=opened.model.model_id)
        ):
            kept = fresh.encoder.embedding(opened.picture, opened.model, window)
            assert abs(kept.astype("f4") - found.astype("f4")).max() < 1e-2
