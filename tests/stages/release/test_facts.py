"""What a release knows of how a snapshot came about."""

from pathlib import Path

from stages.release.facts import read_facts
from storage.dataset import Dataset
from tests.small_dataset import small_dataset
from tests.stages.release.conftest import Released
from tests.stages.release.photos import ANNOTATOR, make_dataset


def test_the_work_of_people_and_of_simulated_annotators_is_told_apart(released: Released) -> None:
    facts = read_facts(released.dataset, released.choice.snapshot)
    assert (facts.annotators, facts.rounds) == (1, 1)
    assert (facts.simulated_masks, facts.people_masks) == (7, 7)
    assert facts.mean_active_s == 4.25 + 3  # tasks 0 to 6
    assert (facts.agreed_tasks, facts.agreement) == (1, 0.75)
    assert facts.images_from == facts.images_to <= facts.masks_to
    readme = (released.out / "README.md").read_text()
    assert "Annotators: 1, whose names do not leave. Rounds: 1." in readme
    assert "The work of people in rounds: 7 masks of the snapshot. Mean time of people on a mask: 7.25 s." in readme


def test_masks_that_are_gone_are_not_counted(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    dataset.fold()
    by_people = f"annotator_id = '{ANNOTATOR}'"
    rows = dataset.masks(by_people, ["image_id", "mask_id"]).read_all().to_pylist()
    simulated = dataset.query("SELECT mask_id FROM annotations WHERE simulated")["mask_id"].to_pylist()
    gone = [(row["image_id"], row["mask_id"]) for row in rows if row["mask_id"] in simulated][:3]
    dataset.withdraw(gone, "a person's wish")
    facts = read_facts(dataset, dataset.snapshot())
    assert (facts.simulated_masks, facts.people_masks) == (4, 7)


def test_a_dataset_without_rounds_has_no_work_of_people(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    facts = read_facts(dataset, dataset.snapshot())
    assert (facts.annotators, facts.rounds, facts.simulated_masks, facts.people_masks) == (0, 0, 0, 0)
    assert (facts.mean_active_s, facts.agreed_tasks, facts.agreement) == (None, 0, None)


def test_an_empty_dataset_has_no_days(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "dataset")
    facts = read_facts(dataset, dataset.snapshot())
    assert (facts.images_from, facts.images_to, facts.masks_from, facts.masks_to) == ("", "", "", "")
