"""Verdicts on masks: from labelled images, and from people's reviews in a workspace."""

from pathlib import Path

import numpy as np
import pytest

from engine.detector.config import DetectConfig
from engine.detector.weights import load_detector
from engine.labelled import load_folder
from engine.model.weights import load_model
from engine.verifier.features import FEATURES
from stages.semi_automatic.prefill import PrefillConfig
from stages.semi_automatic.verdicts import (
    VerdictConfig,
    collect_reviews,
    collect_verdicts,
    read_reviewed_masks,
)
from storage import rle
from storage.dataset import Dataset
from storage.errors import NotFound
from storage.rle import Rle
from storage.workspace.records import GivenMask, RoundSpec, TaskSpec
from storage.workspace.workspace import Workspace
from tests.engine.detector.square_detector import square_model
from tests.paths import PHOTOS
from tests.small_dataset import SIDE, small_dataset
from tests.workspaces import Page, made


def square(left: int, side: int = 20) -> Rle:
    mask_HW = np.zeros((SIDE, SIDE), dtype=bool)
    mask_HW[4 : 4 + side, left : left + side] = True
    return rle.encode(mask_HW)


def given(name: str, left: int, stability: float | None = 0.9) -> GivenMask:
    return GivenMask(mask=name, rle=square(left), model_id="seed-1", predicted_iou=0.8, stability_score=stability)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    opened = Workspace.open(tmp_path / "workspace.sqlite")
    for name, role in (("ann", "annotator"), ("rita", "reviewer"), ("rob", "reviewer"), ("lea", "lead")):
        opened.users.add(name, role)
    return opened


def submit_one(workspace: Workspace, image_id: int, *operations: tuple[str, dict[str, object]]) -> int:
    """Open a round on one image with four prefilled masks, work on it as ann, submit; the submission's id."""
    masks = (given("p0", 0), given("p1", 10), given("p2", 20), given("unscored", 30, stability=None))
    task = TaskSpec(image_id=image_id, height=SIDE, width=SIDE, prefill=masks)
    workspace.rounds.open(RoundSpec(stage="semi_automatic", tasks=(task,)))
    (lease,) = workspace.leases.claim("ann")
    page = Page()
    workspace.operations.append(lease.token, [page(kind, payload) for kind, payload in operations])
    return workspace.submissions.submit(lease.token, len(operations)).submission_id


def test_reviewers_decide_by_majority_and_annotators_where_no_reviewer_did(workspace: Workspace) -> None:
    operations = [("accept", {"mask": "p0"}), ("reject", {"mask": "p1"}), ("accept", {"mask": "unscored"})]
    submission = submit_one(workspace, 7, *operations, ("add", made("drawn", square(40))))
    assert [mask.good for mask in read_reviewed_masks(workspace)[7]] == [True, False], "p2 stands undecided"

    def answer(mask: str, **by: str) -> None:
        for reviewer, said in by.items():
            workspace.submissions.add_verdict(
                submission, reviewer=reviewer, question="mask_good", answer=said, mask=mask
            )

    answer("p0", rita="no", rob="unsure")
    answer("p2", rita="no", rob="yes")
    answer("drawn", rita="yes")
    (p0, p1) = read_reviewed_masks(workspace)[7]
    assert (p0.rle, p0.good) == (square(0), False), "the reviewer overrules the annotator"
    assert (p1.rle, p1.good) == (square(10), False)
    answer("p2", rita="yes")
    assert [mask.good for mask in read_reviewed_masks(workspace)[7]] == [False, True, False], "the newest answer counts"


def test_reviews_become_features_of_the_images_of_the_dataset(workspace: Workspace, tmp_path: Path) -> None:
    dataset: Dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    ids = sorted(dataset.known_image_ids())[:2]
    for image_id in ids:
        submit_one(workspace, image_id, ("accept", {"mask": "p0"}), ("reject", {"mask": "p2"}))
    verdicts = collect_reviews(square_model(), dataset, workspace)
    assert verdicts.features_NF.shape == (4, len(FEATURES))
    assert verdicts.good_N.tolist() == [True, False] * 2
    assert sorted(set(verdicts.photograph_N)) == sorted(map(str, ids))
    submit_one(workspace, 12345, ("accept", {"mask": "p0"}))
    with pytest.raises(NotFound, match="no image 12345"):
        collect_reviews(square_model(), dataset, workspace)


def test_a_workspace_without_verdicts_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no verdict on a mask that a model made"):
        collect_reviews(square_model(), small_dataset(tmp_path / "dataset"), workspace)


@pytest.mark.slow
def test_verdicts_on_a_labelled_photograph_are_of_both_kinds_and_stricter_ones_are_fewer() -> None:
    model = load_model("seed")
    detector = load_detector("seed-detector", model)
    images = [image for image in load_folder(PHOTOS) if image.stem == "nuts_0"]
    few = PrefillConfig(detect=DetectConfig(max_boxes=20), min_box_score=0.0, min_predicted_iou=0.0, min_stability=0.0)
    loose, strict = (
        collect_verdicts(model, detector, images, VerdictConfig(min_iou=limit, prefill=few)) for limit in (0.5, 0.9)
    )
    assert 0 < loose.good_N.sum() < len(loose.good_N)
    assert strict.good_N.sum() < loose.good_N.sum()
    assert np.array_equal(loose.features_NF, strict.features_NF)
    assert set(loose.photograph_N) == {"nuts/nuts_0"}
    good = loose.good_N
    column = FEATURES.index("click_agreement")
    assert loose.features_NF[good, column].mean() > loose.features_NF[~good, column].mean()
    with pytest.raises(ValueError, match="got 0 images that give no mask to judge"):
        collect_verdicts(model, detector, [])
