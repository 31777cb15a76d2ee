"""`gigamask serve` with a real Prefect server: closing a round starts retraining by itself, once."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.workspace.firings import FiringState
from tests.flows.scheduling import TINY_TRAINING, Engine, wait_until
from tests.stages.rounds.answering import image_ids
from tests.stages.training.rounds_to_train import close_new_round

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.close()


def test_closing_a_round_starts_retraining_by_itself_once(engine: Engine) -> None:
    settings = ("retraining.after_masks=20", "retraining.check_every_s=600", *TINY_TRAINING)
    first, lines = engine.serve(*settings)
    time.sleep(6)
    assert engine.fired("retraining") == [], "12 masks are too few"

    # Eight masks more reach 20
    close_new_round(engine.dataset, engine.workspace, image_ids(engine.dataset)[6:])
    wait_until(lambda: [each for each in engine.fired("retraining") if each.state is FiringState.DONE], 120)
    (firing,) = engine.fired("retraining")
    assert (firing.key, firing.attempts, firing.result["accepted_masks"]) == ("masks:20", 1, 20)
    decided = engine.dataset.promotions.history()[-1]
    assert decided.made_by == "gigamask serve"
    assert decided.model_id == firing.result["model"]
    assert len(firing.result["rounds"]) == 2

    # Killed and started again it has nothing to do, and nothing of it was left running
    engine.stop(first, signal.SIGKILL)
    again, _ = engine.serve(*settings)
    time.sleep(8)
    assert engine.fired("retraining") == [firing]
    assert len(engine.dataset.promotions.history()) == 2
    engine.stop(again)
    assert again.returncode == 143
    assert not [line for line in lines if "Traceback" in line or "Warning" in line], lines
