"""Schedules against real Prefect servers, SQLite and PostgreSQL: each tick once, whatever is restarted or doubled."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flows.config.serve import load_serve_settings
from flows.data_engine import Step, decide, read_state
from flows.loop.crew import serving
from flows.loop.split import PhotoSet
from flows.schedules.prefect_server import serving_prefect
from stages.promoted import PROMOTED
from storage.protocol.promotions import Decided, Decision
from storage.workspace.firings import FiringState
from tests import postgresql_server
from tests.flows.scheduling import TINY_TRAINING, Engine, wait_until
from tests.stages.rounds.answering import answer_all, image_ids
from tests.stages.training.rounds_to_train import close_new_round

pytestmark = pytest.mark.timeout(900)
EVERY_MINUTE = "verify.cron='* * * * *'"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.close()


def test_every_tick_fires_once_across_two_schedulers_a_redeploy_and_a_restart(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    with serving_prefect(tmp_path / "shared") as url:
        # Two schedulers on one server, and a third with a server of its own
        first, _ = engine.serve(EVERY_MINUTE, "verify.fast=true", PREFECT_API_URL=url)
        second, _ = engine.serve(EVERY_MINUTE, "verify.fast=true", PREFECT_API_URL=url)
        third, lines = engine.serve(EVERY_MINUTE, "verify.fast=true")
        wait_until(lambda: len(engine.fired("verify")) >= 2, 200)

        # A redeploy over the first, then two minutes without any scheduler, while the shared server plans on
        engine.stop(first)
        redeployed, _ = engine.serve(EVERY_MINUTE, "verify.fast=true", PREFECT_API_URL=url)
        before = len(engine.fired("verify"))
        wait_until(lambda: len(engine.fired("verify")) > before, 90)
        for each in (second, third, redeployed):
            engine.stop(each, signal.SIGKILL)
        time.sleep(10)  # flow runs under way end
        seen = {each.key for each in engine.fired("verify")}
        time.sleep(130)
        restarted, _ = engine.serve(EVERY_MINUTE, "verify.fast=true", PREFECT_API_URL=url)
        wait_until(lambda: len(engine.fired("verify")) > len(seen), 120)
        time.sleep(20)  # the late runs come to their turn
        fired = engine.fired("verify")
        runs = _runs(url, "scheduled-verify")
        engine.stop(restarted)

    # Every tick is a minute, done once; one that was killed at work may be lost to the next; of late ticks one was done
    minutes = [re.fullmatch(r"cron \* \* \* \* \*:(....-..-..T..:..):00Z", each.key)[1] for each in fired]
    assert len(set(minutes)) == len(minutes)
    done = [each for each in fired if each.state is FiringState.DONE]
    assert len(done) >= 3
    assert {each.attempts for each in done} == {1}
    assert {each.state for each in fired} <= {FiringState.DONE, FiringState.LOST}
    assert fired[-1].state is FiringState.DONE
    new = [each for each in fired if each.key not in seen]
    assert len(new) <= 2, f"late ticks were worked off one by one: {new}"
    late = [run for run in runs if run["state_type"] == "COMPLETED"]
    assert len(late) > len(new), "Prefect started more runs than there was work"
    assert not [line for line in lines if "Traceback" in line], lines


def test_a_cron_run_and_a_number_of_masks_fire_retraining_once_each(engine: Engine) -> None:
    settings = ("retraining.cron='* * * * *'", "retraining.after_masks=16", *TINY_TRAINING)
    first, _ = engine.serve(*settings)
    second, _ = engine.serve(*settings)
    wait_until(lambda: [each for each in engine.fired("retraining") if each.state is FiringState.DONE], 150)
    close_new_round(engine.dataset, engine.workspace, image_ids(engine.dataset)[6:])  # 12 and 8 more
    wait_until(lambda: [each for each in engine.fired("retraining") if each.result.get("accepted_masks") == 20], 200)
    engine.stop(first)
    engine.stop(second)
    fired = engine.fired("retraining")
    assert {each.state for each in fired} <= {FiringState.DONE, FiringState.LOST}
    assert max(each.attempts for each in fired) == 1
    rounds = [each.result["rounds"] for each in fired if each.state is FiringState.DONE]
    assert [len(each) for each in rounds][:1] == [1]
    decisions = [each.key for each in engine.dataset.promotions.history()]
    assert len(set(decisions)) == len(decisions)
    assert engine.dataset.maintenance.verify().faults == ()


def test_a_process_worker_runs_a_deployment_of_prefect_yaml_with_a_server_on_postgresql(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if postgresql_server.programs() is None:
        pytest.skip("no PostgreSQL: initdb is not installed (Debian: postgresql)")
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    with postgresql_server.serving() as database:
        with psycopg.connect(database.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE prefect")
        address = database.url("prefect").replace("postgresql://", "postgresql+asyncpg://")
        monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", address)
        with serving_prefect(tmp_path / "shared") as url:
            environment = engine.environment(PREFECT_API_URL=url, PREFECT_SERVER_ANALYTICS_ENABLED="false")
            written = [sys.executable, "-m", "flows.cli", *engine.arguments("verify.cron='0 0 1 1 *'")]
            subprocess.run([*written, "--prefect-yaml", str(tmp_path / "prefect.yaml")], env=environment, check=True)
            prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
            for command in (
                ["work-pool", "create", "gigamask", "--type", "process"],
                ["deploy", "--all"],
                ["deployment", "run", "scheduled-verify/verify"],
            ):
                done = subprocess.run(
                    [*prefect, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
                )
                assert done.returncode == 0, done.stdout + done.stderr
            worker = subprocess.Popen(
                [*prefect, "worker", "start", "--pool", "gigamask"], env=environment, cwd=tmp_path
            )
            try:
                wait_until(lambda: [each for each in engine.fired("verify") if each.state is FiringState.DONE], 180)
                wait_until(lambda: "COMPLETED" in {run["state_type"] for run in _runs(url, "scheduled-verify")}, 60)
            finally:
                worker.terminate()
                worker.wait(60)
    (firing,) = engine.fired("verify")
    assert firing.key.startswith("by hand:")
    assert firing.result["faults"] == 0


def test_the_data_engine_retrains_opens_closes_and_comes_to_its_end(engine: Engine) -> None:
    rounds = ("engine.every_s=10", "engine.images_per_round=4", "engine.retrain_after=8")
    policy = (*rounds, *TINY_TRAINING)
    settings = load_serve_settings(assignments=policy)
    engine.serve(*policy)

    # Twelve masks are there: it retrains, then asks about the four images that no round had
    wait_until(lambda: [each for each in engine.workspace.rounds.read_all() if each.state == "open"], 200)
    (opened,) = [each for each in engine.workspace.rounds.read_all() if each.state == "open"]
    assert (opened.stage, len(engine.workspace.rounds.tasks(opened.round_id))) == ("assisted_manual", 4)
    time.sleep(25)
    assert len(engine.workspace.rounds.read_all()) == 2, "people are at work"

    # Once they are done it closes the round, retrains on it,
    answer_all(engine.workspace, "ann", squares=2)
    # and makes automatic masks on what is left; then it stops
    wait_until(lambda: [each for each in engine.fired("masks") if each.state is FiringState.DONE], 400)
    fired = engine.workspace.firings.read_all()
    assert [(each.job, each.key.partition(":")[0], each.state) for each in fired] == [
        ("retraining", "masks", FiringState.DONE),
        ("engine", "assisted_manual", FiringState.DONE),
        ("engine", "close", FiringState.DONE),
        ("retraining", "masks", FiringState.DONE),
        ("masks", "engine", FiringState.DONE),
    ]
    assert decide(read_state(engine.dataset, engine.workspace, settings), settings.engine).step is Step.STOP
    assert len(engine.workspace.rounds.read_all()) == 2, "no image is left to ask about"


def test_a_promotion_and_a_rollback_reach_a_running_annotation_server_within_a_minute(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.serve("retraining.after_masks=10", *TINY_TRAINING)
    wait_until(lambda: [each for each in engine.fired("retraining") if each.state is FiringState.DONE], 150)
    trained = str(engine.fired("retraining")[0].result["model"])
    first = engine.dataset.promotions.history()[0].promoted
    engine.workspace.users.add("lea", "lead", password="correct horse")
    monkeypatch.setenv("HOME", str(engine.folder))
    photos = PhotoSet(dataset=engine.dataset, truth={})
    with serving(photos, str(engine.folder / "workspace.sqlite"), [PROMOTED], engine.folder) as served:

        def model_id() -> str:
            with urllib.request.urlopen(f"{served.url}/api/health", timeout=30) as answer:
                return str(json.load(answer)["models"][0])

        before = engine.dataset.promotions.history()[-1].promoted
        assert model_id() == before
        if before == first:  # two steps of training rarely pass the gate
            asked = Decided(
                decision=Decision.PROMOTION,
                model_id=trained,
                over=first,
                key="test",
                made_by="lea",
                reason="to roll back",
            )
            engine.dataset.promotions.add(asked)
            wait_until(lambda: model_id() == trained, 60)
        rolled = subprocess.run(
            [sys.executable, "-m", "flows.cli", "models", "rollback", "--dataset", engine.dataset.uri],
            env=engine.environment(),
            check=True,
            timeout=60,
        )
        assert rolled.returncode == 0
        wait_until(lambda: model_id() == first, 60)


def _runs(url: str, flow: str) -> list[dict[str, str]]:
    """Read the flow runs of a Prefect server, by the name of their flow."""
    body = json.dumps({"flows": {"name": {"any_": [flow]}}}).encode()
    request = urllib.request.Request(f"{url}/flow_runs/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, str]] = json.load(answer)
    return found
