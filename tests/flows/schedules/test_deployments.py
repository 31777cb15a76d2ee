"""Which flows run when: from settings to schedules, and to prefect.yaml."""

import importlib
from pathlib import Path

import pytest
import yaml

from flows.config.serve import ServeSettings, load_serve_settings
from flows.schedules.deployments import list_deployments, make_deployment
from flows.schedules.prefect_yaml import render_prefect_yaml
from tests.paths import ROOT


def test_every_schedule_that_is_wanted_is_a_deployment_and_no_other() -> None:
    names = [each.name for each in list_deployments(ServeSettings())]
    assert names == ["retrain-by-cron", "retrain-after-masks", "masks-by-interval", "verify", "audit"]
    assignments = ["retraining.cron=''", "retraining.after_masks=0", "masks.every_s=0", "audit.cron=''"]
    assert [each.name for each in list_deployments(load_serve_settings(assignments=assignments))] == ["verify"]
    every = ["retraining.every_s=60", "masks.cron='0 1 * * *'", "prefill.every_s=60", "prefill.cron='0 1 * * *'"]
    assert len(list_deployments(load_serve_settings(assignments=[*every, "engine.every_s=60"]))) == 10


def test_a_deployment_names_an_entrypoint_that_any_worker_can_import() -> None:
    for each in list_deployments(ServeSettings()):
        module, _, function = str(make_deployment(each, ServeSettings()).entrypoint).rpartition(".")
        assert getattr(importlib.import_module(module), function) is each.flow


def test_the_engine_is_called_where_something_is_due_and_by_a_worker_at_every_interval() -> None:
    settings = load_serve_settings(assignments=["engine.every_s=60"])
    scheduled = {each.name: make_deployment(each, settings).schedules for each in list_deployments(settings)}
    assert [name for name, schedules in scheduled.items() if not schedules] == ["data-engine"]
    rendered = yaml.safe_load(render_prefect_yaml(settings, "gigamask"))["deployments"]
    (worker,) = [each for each in rendered if each["name"] == "data-engine"]
    assert worker["schedules"][0]["interval"] == 60


def test_deployments_that_were_made_before_still_find_their_flows() -> None:
    every = [
        f"{job}.{kind}" for job in ("retraining", "masks", "prefill") for kind in ("cron='0 1 * * *'", "every_s=60")
    ]
    listed = list_deployments(load_serve_settings(assignments=[*every, "engine.every_s=60"]))
    assert {str(make_deployment(each, ServeSettings()).entrypoint) for each in listed} == {
        "flows.jobs.retrain",
        "flows.jobs.retrain_after_masks",
        "flows.jobs.mask_new_images",
        "flows.jobs.open_next_round",
        "flows.jobs.verify",
        "flows.jobs.draw_audit",
        "flows.data_engine.data_engine",
    }, "Prefect servers and prefect.yaml files of users hold these"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("audit.cron='every monday'", "audit: cron 'every monday' in UTC: .*[Ii]nvalid cron"),
        ("timezone=Atlantis", "cron '0 2 . . .' in Atlantis: .*timezone"),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_name(assignment: str, message: str) -> None:
    settings = load_serve_settings(assignments=[assignment])
    with pytest.raises(ValueError, match=message):
        _ = [make_deployment(each, settings) for each in list_deployments(settings)]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("masks.every_s=1", "masks.every_s: got 1.*at least 5 seconds"),
        ("retraining.after_masks=-1", "retraining.after_masks: got -1, expected at least 0"),
        ("retraining.aftermasks=5", "did you mean retraining.after_masks"),
        ("engine.max_person_hours=-1", "engine.max_person_hours: got -1.0, expected at least 0"),
        ("engine.fully_automatic_after=5", "engine.fully_automatic_after: got 5, expected at least 1000"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_serve_settings(assignments=[assignment])


def test_a_settings_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_text('dataset = "pictures"\n[retraining]\nafter_masks = 40\n[retrain.train]\nbatch_size = 2\n')
    settings = load_serve_settings(file=file, dataset=None)
    assert (settings.dataset, settings.retraining.after_masks) == ("pictures", 40)
    assert settings.retrain == {"train": {"batch_size": 2}}


def test_prefect_yaml_of_the_repository_is_current() -> None:
    settings = load_serve_settings(
        dataset="{{ $GIGAMASK_DATASET }}", workspace="{{ $GIGAMASK_WORKSPACE }}", work_folder="{{ $GIGAMASK_WORK }}"
    )
    written = (ROOT / "prefect.yaml").read_text()
    assert written == render_prefect_yaml(settings, "gigamask"), "write it again, as its first lines say"
    deployments = yaml.safe_load(written)["deployments"]
    assert [each["name"] for each in deployments] == [each.name for each in list_deployments(settings)]
