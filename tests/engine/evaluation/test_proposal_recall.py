"""AR@1000 by size: that of pycocotools, and the limit of a thousand proposals."""

import contextlib
import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.evaluation.proposal_recall import MAX_PROPOSALS, SIZES, evaluate_proposals
from engine.labelled import LabelledImage
from storage import rle
from storage.rle import Rle

SIDE = 200


class Given:
    """Proposes masks made beforehand, by the picture's grey."""

    name = model_id = "given"

    def __init__(self, by_grey: list[list[Rle]]) -> None:
        self.by_grey = by_grey

    def propose(self, image_HW3: np.ndarray) -> list[Rle]:
        return self.by_grey[int(image_HW3[0, 0, 0])]


def box(x0: int, y0: int, x1: int, y1: int) -> Rle:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return rle.encode(mask)


def random_boxes(rng: np.random.Generator, count: int) -> list[Rle]:
    """Boxes near each other, with sides from 20 to 140 pixels: of every size class, and some that compete for one."""
    sides = rng.choice([20, 32, 60, 96, 140], size=count) + rng.integers(-3, 4, size=count)
    corners = rng.integers(0, 12, size=(count, 2))
    return [box(int(x), int(y), int(x + side), int(y + side)) for (x, y), side in zip(corners, sides, strict=True)]


def labelled(number: int, people: dict[int, list[Rle]]) -> LabelledImage:
    encoded = cv2.imencode(".png", np.full((SIDE, SIDE, 3), number, np.uint8))[1].tobytes()
    return LabelledImage(
        domain="d",
        stem=f"p{number}",
        origin=f"p{number}.png",
        read_bytes=lambda: encoded,
        image_id=number,
        height=SIDE,
        width=SIDE,
        masks_by_annotator={annotator: tuple(masks) for annotator, masks in people.items()},
    )


def coco_recall(made: list[list[Rle]], true: list[list[Rle]]) -> dict[str, float]:
    """AR@1000 of pycocotools by size, without classes."""
    pairs = [(image, mask) for image, masks in enumerate(true) for mask in masks]
    common = [
        {"image_id": image, "category_id": 1, "segmentation": {"size": [SIDE, SIDE], "counts": rle.to_coco(mask)}}
        for image, mask in pairs
    ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image, "height": SIDE, "width": SIDE} for image in range(len(true))],
        "categories": [{"id": 1}],
        "annotations": [
            each | {"id": 1 + number, "iscrowd": 0, "area": rle.area(mask)}
            for number, (each, (_, mask)) in enumerate(zip(common, pairs, strict=True))
        ],
    }
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
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.params.maxDets = [1, 10, 1000]
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
    recall_TA = evaluation.eval["recall"][:, 0, :, 2]
    return dict(zip(evaluation.params.areaRngLbl, recall_TA.mean(axis=0).tolist(), strict=True))


def test_recall_by_size_is_that_of_pycocotools() -> None:
    rng = np.random.default_rng(4)
    people = [[*random_boxes(rng, 12), box(0, 0, 32, 32)] for _ in range(5)]  # 32 x 32 is small and medium
    made = [random_boxes(rng, 40) for _ in range(5)]
    evaluation = evaluate_proposals(Given(made), [labelled(number, {0: each}) for number, each in enumerate(people)])
    expected = coco_recall(made, people)
    assert set(expected) == set(SIZES)
    for size, recall in expected.items():
        assert evaluation.recall(size).value == pytest.approx(recall)
        assert 0 < recall < 1
    content = evaluation.to_json()["overall"]
    assert content["ar_small"] == pytest.approx(expected["small"], abs=1e-5)
    assert content["masks_all"] == 65


def test_only_the_thousand_masks_ranked_highest_count_and_people_are_matched_alone() -> None:
    truth, other = box(0, 0, 50, 50), box(100, 100, 150, 150)
    image = labelled(0, {0: [truth, other], 1: [truth]})
    rest = [box(190, 190, 195, 195)] * (MAX_PROPOSALS - 1)
    found = evaluate_proposals(Given([[*rest, truth, other]]), [image])
    assert [score.recall["all"] for score in found.scores] == [1, 0, 1]
    assert found.recall("medium").value == pytest.approx(2 / 3)
    assert found.recall("large") is None
    assert found.proposals_per_image == MAX_PROPOSALS
    assert evaluate_proposals(Given([[]]), [image]).recall("all").value == 0


def test_masks_of_lvis_count_by_the_frequency_of_their_category() -> None:
    masks = [box(0, 0, 20, 20), box(50, 50, 90, 90), box(100, 0, 150, 50)]
    image = replace(labelled(0, {0: masks}), frequencies=("rare", "common", "rare"))
    result = evaluate_proposals(Given([[masks[0], masks[1]]]), [image])
    assert result.groups == (*SIZES, "common", "rare")
    recall = {group: result.recall(group) for group in ("all", "common", "rare", "frequent")}
    values = {group: estimate and estimate.value for group, estimate in recall.items()}
    assert values == {"all": pytest.approx(2 / 3), "common": 1, "rare": 0.5, "frequent": None}
    summary = result.to_json()["overall"]
    assert (summary["masks_rare"], summary["ar_rare"]) == (2, 0.5)
    assert "ar_frequent" not in summary
