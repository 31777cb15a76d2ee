import contextlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.evaluation.automatic import (
    IOU_THRESHOLDS,
    AutomaticEvaluation,
    FoundScore,
    difference,
    evaluate_automatic,
    finders,
    score_masks,
)
from engine.evaluation.boundaries import boundary_iou
from engine.evaluation.classical import FelzenszwalbSegmenter
from engine.evaluation.config import EvaluationConfig
from engine.labelled import LabelledImage, load_folder
from storage import rle
from storage.rle import Rle
from tests.paths import PHOTOS

SIDE = 60


@dataclass(frozen=True)
class Given:
    """Proposes masks made beforehand, by the picture's grey."""

    by_grey: dict[int, list[Rle]]
    name: str = "given"
    model_id: str = "given-0"

    def propose(self, image_HW3: np.ndarray) -> list[Rle]:
        return self.by_grey[int(image_HW3[0, 0, 0])]


def box(x0: int, y0: int, x1: int, y1: int) -> Rle:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return rle.encode(mask)


def random_boxes(rng: np.random.Generator, count: int) -> list[Rle]:
    """Boxes near each other, so that several compete for one."""
    corners = rng.integers((0, 0, 22, 22), (20, 20, 42, 42), size=(count, 4))
    return [box(*map(int, corner)) for corner in corners]


def labelled(folder: Path, number: int, people: dict[int, list[Rle]]) -> LabelledImage:
    path = folder / f"p{number}.png"
    cv2.imwrite(str(path), np.full((SIDE, SIDE, 3), 10 * number, np.uint8))
    return LabelledImage(
        domain=folder.name,
        stem=path.stem,
        origin=str(path),
        read_bytes=path.read_bytes,
        image_id=number,
        height=SIDE,
        width=SIDE,
        masks_by_annotator={annotator: tuple(masks) for annotator, masks in people.items()},
    )


def coco_recall(made: list[list[Rle]], true: list[list[Rle]], max_masks: int) -> np.ndarray:
    """pycocotools' recall at its ten IoU thresholds, without classes; one list of masks an image."""
    truth = COCO()
    annotations = [
        {
            "id": 1 + 1000 * image + number,
            "image_id": image,
            "category_id": 1,
            "iscrowd": 0,
            "area": rle.area(mask),
            "segmentation": {"size": [SIDE, SIDE], "counts": rle.to_coco(mask)},
        }
        for image, masks in enumerate(true)
        for number, mask in enumerate(masks)
    ]
    results = [
        {
            "image_id": image,
            "category_id": 1,
            "score": 1 - rank / 1000,
            "segmentation": {"size": [SIDE, SIDE], "counts": rle.to_coco(mask)},
        }
        for image, masks in enumerate(made)
        for rank, mask in enumerate(masks)
    ]
    truth.dataset = {
        "info": {},
        "images": [{"id": image, "height": SIDE, "width": SIDE} for image in range(len(true))],
        "categories": [{"id": 1}],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.params.maxDets = [1, 10, max_masks]
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["recall"][:, 0, 0, 2]


def test_recall_is_that_of_pycocotools(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    people = [random_boxes(rng, 9) for _ in range(6)]
    made = [random_boxes(rng, 130) for _ in range(6)]
    images = [labelled(tmp_path, number, {0: masks}) for number, masks in enumerate(people)]
    evaluation = evaluate_automatic(Given({10 * n: masks for n, masks in enumerate(made)}), images)
    every, highest = coco_recall(made, people, 1000), coco_recall(made, people, 100)
    assert evaluation.overall.recall_T == pytest.approx(every)
    assert evaluation.overall.figures["recall_75"].value == pytest.approx(every[5])
    assert evaluation.overall.figures["ar_100"].value == pytest.approx(highest.mean())
    assert highest.mean() < every.mean()
    assert 0 < highest[-1] < highest[0]


def test_each_person_is_matched_alone(tmp_path: Path) -> None:
    """Five people who drew the same object are five masks found by one made mask, not one found and four missed."""
    image = labelled(tmp_path, 0, {person: [box(0, 0, 30, 30), box(40, 40, 50, 50)] for person in range(5)})
    evaluation = evaluate_automatic(Given({0: [box(0, 0, 30, 30)]}), [image])
    assert evaluation.overall.masks_of_people == 10
    assert evaluation.overall.figures["recall_50"].value == evaluation.overall.figures["ar_100"].value == 0.5
    assert evaluation.overall.figures["share_50"].value == 1.0


def test_a_made_mask_takes_one_mask_of_a_person_and_the_better_ranked_goes_first() -> None:
    # two copies of a person's mask, and one made mask on both: it can be only one of them
    assert finders(np.array([[0.9, 0.9]]), 0.5).tolist() == [1, 0]
    # the second would fit the first column better, but that is taken; it takes what is left, if that fits
    assert finders(np.array([[0.8, 0.6], [0.9, 0.55]]), 0.5).tolist() == [0, 1]
    assert finders(np.array([[0.8, 0.6], [0.9, 0.55]]), 0.6).tolist() == [0, 2]
    assert finders(np.zeros((0, 2)), 0.5).tolist() == [0, 0]


def test_scores_are_those_of_counting_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    people, made = {0: random_boxes(rng, 4), 2: random_boxes(rng, 3)}, random_boxes(rng, 12)
    image = labelled(tmp_path, 0, people)
    pairs = [(person, mask) for person, masks in people.items() for mask in masks]
    made_scores, found_scores = score_masks(made, image, pairs)
    pixels, true = [rle.decode(mask) for mask in made], [rle.decode(mask) for _, mask in pairs]
    iou_AB = np.array([[(a & b).sum() / (a | b).sum() for b in true] for a in pixels])
    assert [score.best_iou for score in made_scores] == iou_AB.max(axis=1).tolist()
    assert [score.area_fraction for score in made_scores] == [each.mean() for each in pixels]
    bounds = [boundary_iou(pixels[best], mask) for best, mask in zip(iou_AB.argmax(axis=0), true, strict=True)]
    assert [score.boundary_iou for score in found_scores] == bounds
    assert [score.annotator for score in found_scores] == [0, 0, 0, 0, 2, 2, 2]


def test_masks_that_are_not_to_be_found_still_count_as_somebodys(tmp_path: Path) -> None:
    """A made mask is not wrong because the masks to be found were limited, or because the person's was small."""
    image = labelled(tmp_path, 0, {0: [box(0, 0, 30, 30), box(40, 40, 42, 42)]})
    config = EvaluationConfig(min_area_fraction=0.01)
    evaluation = evaluate_automatic(Given({0: [box(40, 40, 42, 42)]}), [image], config)
    assert evaluation.overall.masks_of_people == 1
    assert evaluation.left_out.small_masks == 1
    assert evaluation.overall.figures["share_50"].value == 1.0
    assert evaluation.overall.figures["recall_50"].value == 0.0


def test_photographs_without_a_mask_of_people_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 1 images without a mask to measure"):
        evaluate_automatic(Given({0: [box(0, 0, 30, 30)]}), [labelled(tmp_path, 0, {0: []})])


def test_a_photograph_without_a_made_mask_counts_against_recall_and_not_in_the_share(tmp_path: Path) -> None:
    images = [labelled(tmp_path, number, {0: [box(0, 0, 30, 30)]}) for number in range(2)]
    evaluation = evaluate_automatic(Given({0: [box(0, 0, 30, 30)], 10: []}), images)
    assert evaluation.overall.figures["share_50"].value == 1.0
    assert evaluation.overall.figures["recall_50"].value == 0.5
    assert evaluation.overall.figures["recall_50"].interval == (0.0, 1.0)
    nothing = evaluate_automatic(Given({0: [], 10: []}), images)
    assert nothing.overall.figures["share_50"] is None
    assert nothing.overall.figures["boundary_iou"].value == 0.0
    assert json.loads(json.dumps(nothing.to_json(), allow_nan=False))["overall"]["share_50"] is None


def test_two_proposers_are_compared_at_an_equal_number_of_masks(tmp_path: Path) -> None:
    images = [labelled(tmp_path, number, {0: [box(0, 0, 30, 30), box(30, 30, 60, 60)]}) for number in range(3)]
    few = {0: [box(0, 0, 30, 30)], 10: [box(0, 0, 30, 30), box(5, 5, 9, 9)], 20: []}
    many = {10 * number: [box(30, 30, 60, 60), box(0, 0, 30, 30), box(7, 7, 9, 9)] for number in range(3)}
    first = evaluate_automatic(Given(few), images)
    second = evaluate_automatic(Given(many), images, at_most=first.made_in_image)
    assert list(first.made_in_image.values()) == [1, 2, 0]
    assert second.made_in_image == first.made_in_image
    changed = difference(first, second, seed=0)
    assert changed["share_50"].value == pytest.approx(1 - 2 / 3)
    assert changed["recall_50"].value == pytest.approx(3 / 6 - 2 / 6)
    assert changed == difference(first, second, seed=0, domain=tmp_path.name)
    other = replace(second, found=second.found[1:])
    with pytest.raises(ValueError, match="different masks"):
        difference(first, other, seed=0)


def test_sizes_and_domains_hold_their_own_masks(tmp_path: Path) -> None:
    image = labelled(tmp_path, 0, {0: [box(0, 0, 5, 5), box(0, 0, 30, 30), box(10, 0, 60, 60)]})
    evaluation = evaluate_automatic(Given({0: [box(0, 0, 30, 30), box(0, 0, 60, 60)]}), [image])
    assert {name: (size.masks_made, size.masks_of_people) for name, size in evaluation.sizes.items()} == {
        "under 1 %": (0, 1),
        "over 10 %": (2, 2),
    }
    assert set(evaluation.domains) == {tmp_path.name}
    assert evaluation.domains[tmp_path.name] == evaluation.overall


@pytest.fixture(scope="module")
def felzenszwalb() -> AutomaticEvaluation:
    images = [image for image in load_folder(PHOTOS) if image.stem in ("nuc_670ebd9d674b", "nuts_0")]
    return evaluate_automatic(FelzenszwalbSegmenter(), images)


def test_a_real_proposer_on_real_photographs_finds_what_it_makes_well(felzenszwalb: AutomaticEvaluation) -> None:
    figures = {name: figure.value for name, figure in felzenszwalb.overall.figures.items()}
    assert figures["recall_50"] > 0.6
    assert figures["recall_50"] >= figures["recall_75"]
    assert figures["recall_50"] >= figures["ar_100"] > 0.3
    assert list(felzenszwalb.overall.recall_T) == sorted(felzenszwalb.overall.recall_T, reverse=True)
    assert len(felzenszwalb.overall.recall_T) == len(IOU_THRESHOLDS)
    assert all(isinstance(score, FoundScore) for score in felzenszwalb.found)


def test_the_json_has_every_figure_with_its_interval(felzenszwalb: AutomaticEvaluation) -> None:
    content = json.loads(json.dumps(felzenszwalb.to_json(), allow_nan=False))
    assert set(content["domains"]) == {"nuclei", "nuts"}
    for group in (content["overall"], *content["domains"].values(), *content["sizes"].values()):
        assert {"images", "masks_made", "masks_of_people", "share_50", "share_50_interval", "ar_100"} <= set(group)
    assert content["overall"]["share_50_interval"] is not None
    assert content["domains"]["nuts"]["share_50_interval"] is None  # one photograph: nothing to draw again
