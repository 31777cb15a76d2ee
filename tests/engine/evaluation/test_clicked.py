import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine.evaluation.annotator import centre_click
from engine.evaluation.clicked import evaluate, evaluate_source
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.source import FolderSource
from engine.interactive.segment import Candidates, ObjectPrompt
from engine.labelled import LabelledImage, load_folder, read_pixels
from storage import rle
from tests.paths import PHOTOS


@dataclass(frozen=True)
class Oracle:
    """Knows people's masks: answers a click at a mask's deepest point, or its box, with the mask itself.

    `spoil` makes its candidates, as (masks [M, H, W], predicted IoU [M], the one chosen), from the true mask.
    """

    images: list[LabelledImage]
    spoil: object
    name: str = "oracle"
    model_id: str = "oracle-0"

    def open(self, image_HW3: np.ndarray) -> "OracleImage":
        (image,) = [i for i in self.images if np.array_equal(read_pixels(i), image_HW3)]
        truths = [rle.decode(mask) for masks in image.masks_by_annotator.values() for mask in masks]
        return OracleImage(truths, self.spoil)


@dataclass(frozen=True)
class OracleImage:
    truths: list[np.ndarray]
    spoil: object

    def segment(self, prompts: list[ObjectPrompt]) -> list[Candidates]:
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: ObjectPrompt) -> Candidates:
        (truth,) = [truth for truth in self.truths if truth.any() and self._is_meant(truth, prompt)]
        masks_MHW, iou_M, chosen = self.spoil(truth)
        return Candidates(
            masks_MHW=masks_MHW,
            predicted_iou_M=np.array(iou_M, dtype=np.float32),
            logits_MLL=torch.zeros(len(masks_MHW), 0, 0),
            chosen=chosen,
        )

    def _is_meant(self, truth: np.ndarray, prompt: ObjectPrompt) -> bool:
        if prompt.box_xyxy is not None:
            return rle.box_xyxy(rle.encode(truth)) == prompt.box_xyxy
        return centre_click(truth, np.random.default_rng(0)) == (prompt.clicks[0].x, prompt.clicks[0].y)


def the_truth(truth: np.ndarray) -> tuple[np.ndarray, list[float], int]:
    return truth[None], [1.0], 0


def left_half_first(truth: np.ndarray) -> tuple[np.ndarray, list[float], int]:
    """Shows the left half of the mask's pixels, though the second candidate is the whole."""
    half = np.zeros(truth.shape, dtype=bool)
    rows, columns = np.nonzero(truth)
    order = np.argsort(columns, kind="stable")[: len(columns) // 2]
    half[rows[order], columns[order]] = True
    return np.stack([half, truth, ~truth]), [0.9, 0.6, 0.3], 0


@pytest.fixture
def two_squares(tmp_path: Path) -> Path:
    """One domain of two pictures, with a 20x20 mask each, another person's 10x10 mask, and a speck on the second."""
    folder = tmp_path / "squares"
    folder.mkdir()
    for number, value in enumerate((50, 200)):
        cv2.imwrite(str(folder / f"p{number}.png"), np.full((100, 100, 3), value, np.uint8))
        boxes = [(10, 10, 30, 30, 0), (60, 60, 70, 70, 5)] + [(90, 90, 92, 92, 0)] * number
        annotations: list[dict[str, Any]] = []
        for x0, y0, x1, y1, annotator in boxes:
            mask = np.zeros((100, 100), dtype=bool)
            mask[y0:y1, x0:x1] = True
            size_counts = {"size": [100, 100], "counts": rle.to_coco(rle.encode(mask))}
            annotations.append({"id": len(annotations), "segmentation": size_counts, "annotator": annotator})
        image = {"image_id": number, "height": 100, "width": 100, "file_name": f"p{number}.png"}
        (folder / f"p{number}.json").write_text(json.dumps({"image": image, "annotations": annotations}))
    return folder


def test_an_oracle_scores_1_on_every_real_photograph_and_figure() -> None:
    images = [image for image in load_folder(PHOTOS) if image.domain in ("nuclei", "nuts")]
    config = EvaluationConfig(clicks=(1, 3), noc=True, boxes=True, max_masks_per_image=12)
    evaluation = evaluate(Oracle(images, the_truth), images, config)
    assert set(evaluation.domains) == {"nuclei", "nuts"}
    assert evaluation.overall.images == 5
    for summary in (evaluation.overall, *evaluation.domains.values(), *evaluation.sizes.values()):
        assert {name: figure.value for name, figure in summary.figures.items()} == dict.fromkeys(
            [
                "miou_1_chosen",
                "miou_1_best3",
                "boundary_iou",
                "miou_3",
                "miou_box",
                "miou_box_refined",
                "noc85",
                "noc90",
            ],
            1.0,
        )
        assert summary.failures == {"noc85": 0, "noc90": 0}


def test_the_shown_candidate_counts_as_chosen_and_the_best_as_best_of_3(two_squares: Path) -> None:
    images = load_folder(two_squares)
    evaluation = evaluate(Oracle(images, left_half_first), images)
    assert evaluation.overall.figures["miou_1_chosen"].value == 0.5
    assert evaluation.overall.figures["miou_1_best3"].value == 1.0
    # at 100x100 bands are 3 px wide: 144 and 204 px that share 102 of a 20x20 mask, 50 and 84 that share 42 of a 10x10
    assert evaluation.overall.figures["boundary_iou"].value == pytest.approx((102 / 246 + 42 / 92) / 2)
    calibration = evaluation.calibration
    assert calibration.candidates == 12
    assert calibration.mean_predicted_iou == pytest.approx(0.6)
    assert calibration.mean_true_iou == pytest.approx(0.5)


def test_masks_that_never_get_there_are_reported_as_failures(two_squares: Path) -> None:
    images = load_folder(two_squares)
    evaluation = evaluate(Oracle(images, left_half_first), images, EvaluationConfig(noc=True))
    assert evaluation.overall.figures["noc85"].value == 20
    assert evaluation.overall.failures["noc85"] == evaluation.overall.masks == 4
    assert evaluation.to_json()["overall"]["noc85_failures"] == 4


def test_every_annotators_masks_are_measured_and_specks_are_counted(two_squares: Path) -> None:
    images = load_folder(two_squares)
    evaluation = evaluate(Oracle(images, the_truth), images)
    assert [(score.image, score.annotator) for score in evaluation.scores] == [
        ("squares/p0", 0),
        ("squares/p0", 5),
        ("squares/p1", 0),
        ("squares/p1", 5),
    ]
    assert evaluation.left_out.small_masks == 1
    everything = evaluate(Oracle(images, the_truth), images, EvaluationConfig(min_area_fraction=0.0))
    assert everything.overall.masks == 5
    # 4 px are below 0.1 % of 10,000 px; 100 px are exactly 1 %
    assert {name: size.masks for name, size in everything.sizes.items()} == {"under 1 %": 1, "1 to 10 %": 4}


def test_limits_choose_the_same_masks_every_time_and_say_what_they_left_out() -> None:
    images = load_folder(PHOTOS)
    config = EvaluationConfig(max_images_per_domain=1, max_masks_per_image=3, seed=5)
    runs = [evaluate(Oracle(images, lambda t: (t[None], [1], 0)), images, config) for _ in range(2)]
    chosen = [(score.image, score.area_fraction) for score in runs[0].scores]
    assert len(chosen) == 12
    assert chosen == [(score.image, score.area_fraction) for score in runs[1].scores]
    assert runs[0].left_out.images_over_limit == 5
    assert runs[0].left_out.masks_over_limit + runs[0].left_out.small_masks > 0
    other = evaluate(Oracle(images, the_truth), images, EvaluationConfig(**{**vars(config), "seed": 6}))
    assert chosen != [(score.image, score.area_fraction) for score in other.scores]


def test_odd_image_ids_alone_can_be_measured(two_squares: Path) -> None:
    images = load_folder(two_squares)
    evaluation = evaluate(Oracle(images, the_truth), images, EvaluationConfig(image_ids="odd"))
    assert {score.image for score in evaluation.scores} == {"squares/p1"}
    assert evaluation.left_out.images_of_other_ids == 1


@dataclass
class Recorder:
    """Remembers where it was clicked; answers with the whole picture."""

    clicked: list[tuple[float, float]]
    name: str = "recorder"
    model_id: str = "recorder-0"

    def open(self, image_HW3: np.ndarray) -> "Recorder":
        return self

    def segment(self, prompts: list[ObjectPrompt]) -> list[Candidates]:
        self.clicked += [(prompt.clicks[0].x, prompt.clicks[0].y) for prompt in prompts]
        everything = np.ones((1, 100, 100), dtype=bool)
        predicted = np.ones(1, dtype=np.float32)
        answer = Candidates(masks_MHW=everything, predicted_iou_M=predicted, logits_MLL=torch.zeros(1, 0, 0), chosen=0)
        return [answer] * len(prompts)


def test_clicks_follow_the_policy_asked_for_and_jittered_ones_its_seed(two_squares: Path) -> None:
    def clicks(**settings: object) -> list[tuple[float, float]]:
        recorder = Recorder([])
        evaluate(recorder, load_folder(two_squares), EvaluationConfig(**settings))
        return recorder.clicked

    centre, jittered = clicks(), clicks(click_policy="jittered")
    assert centre == [(19.5, 19.5), (64.5, 64.5)] * 2
    assert all(10 < x < 30 and 10 < y < 30 for x, y in jittered[::2])
    assert jittered[0] not in centre
    assert jittered == clicks(click_policy="jittered") != clicks(click_policy="jittered", seed=1)


def test_pictures_without_labels_or_masks_are_counted(two_squares: Path) -> None:
    shutil.copy(two_squares / "p0.png", two_squares / "new.png")
    content = json.loads((two_squares / "p0.json").read_text())
    (two_squares / "p0.json").write_text(json.dumps({**content, "annotations": []}))
    evaluation = evaluate_source(Oracle(load_folder(two_squares), the_truth), FolderSource(folder=two_squares))
    assert evaluation.left_out.unlabelled_pictures == 1
    assert evaluation.left_out.images_without_masks == 1
    assert evaluation.overall.images == 1


def test_a_folder_without_any_mask_to_measure_is_refused(two_squares: Path) -> None:
    images = load_folder(two_squares)
    with pytest.raises(ValueError, match="2 images without a mask to measure"):
        evaluate(Oracle(images, the_truth), images, EvaluationConfig(min_area_fraction=0.5))


def test_progress_counts_photographs(two_squares: Path) -> None:
    images, seen = load_folder(two_squares), []
    evaluate(Oracle(images, the_truth), images, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_the_json_has_every_figure_and_null_for_what_was_not_asked(two_squares: Path) -> None:
    images = load_folder(two_squares)
    content = json.loads(json.dumps(evaluate(Oracle(images, left_half_first), images).to_json(), allow_nan=False))
    assert content["model"] == "oracle"
    for group in (content["overall"], content["domains"]["squares"]):
        assert (group["images"], group["masks"]) == (2, 4)
        assert group["miou_1_chosen"] == 0.5
        assert group["miou_1_chosen_interval"] == [0.5, 0.5]
        assert group["boundary_iou"] == pytest.approx(0.43558, abs=1e-5)
        for name in ("miou_3", "miou_5", "noc85", "noc90"):
            assert group[name] is None
            assert group[f"{name}_interval"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clicks": ()}, "clicks"),
        ({"clicks": (0,)}, "from 1 to 20"),
        ({"clicks": (21,)}, "from 1 to 20"),
        ({"click_policy": "random"}, "centre, jittered"),
        ({"image_ids": "prime"}, "all, even or odd"),
        ({"min_area_fraction": 1.5}, "min_area_fraction"),
        ({"max_masks_per_image": 0}, "max_masks_per_image"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**settings)
