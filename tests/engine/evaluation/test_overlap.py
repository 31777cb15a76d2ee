from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Barrier

import numpy as np
import pytest
import torch

from engine.evaluation.automatic import evaluate_automatic
from engine.evaluation.classical import FelzenszwalbSegmenter
from engine.evaluation.clicked import evaluate
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.overlap import MAX_PIXELS_AT_ONCE, Chosen, measure_each
from engine.interactive.zoom import ZoomedImage, ZoomingSegmenter, make_segmenter
from engine.labelled import LabelledImage, load_folder
from engine.model.weights import load_model
from tests.paths import PHOTOS


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class Pairing(ZoomingSegmenter):
    """A segmenter that opens an image only when another thread opens one, too."""

    both: Barrier

    def open(self, image_HW3: np.ndarray) -> ZoomedImage:
        """Wait for the other thread."""
        self.both.wait(timeout=300)
        return super().open(image_HW3)


@pytest.fixture
def four_images() -> list[LabelledImage]:
    return [image for image in load_folder(PHOTOS) if image.domain in ("coco", "nuclei")][:4]


def test_images_measured_in_two_threads_have_the_scores_of_one_after_another_bit_by_bit(
    two_threads: None, four_images: list[LabelledImage]
) -> None:
    model, nuclei = load_model("seed"), four_images[2:]
    config = EvaluationConfig(clicks=(1, 2), boxes=True, max_masks_per_image=3)
    two = evaluate(Pairing(model=model, both=Barrier(2)), nuclei, config)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    one = evaluate(make_segmenter(model), nuclei, config)
    assert two.scores == one.scores
    assert two.overall == one.overall


def test_segments_proposed_in_two_threads_have_the_scores_of_one_after_another(
    two_threads: None, four_images: list[LabelledImage]
) -> None:
    two = evaluate_automatic(FelzenszwalbSegmenter(), four_images)
    torch.set_num_threads(1)
    one = evaluate_automatic(FelzenszwalbSegmenter(), four_images)
    assert (two.made, two.found, two.made_in_image) == (one.made, one.found, one.made_in_image)


def test_large_images_are_measured_one_at_a_time_with_all_threads(
    two_threads: None, four_images: list[LabelledImage]
) -> None:
    large: list[Chosen] = [(replace(image, height=MAX_PIXELS_AT_ONCE, width=1), []) for image in four_images]
    assert list(measure_each(lambda pair: torch.get_num_threads(), large, lambda done, total: None)) == [2] * 4
    small: list[Chosen] = [(image, []) for image in four_images]
    assert list(measure_each(lambda pair: torch.get_num_threads(), small, lambda done, total: None)) == [1] * 4


def test_an_image_that_cannot_be_measured_ends_the_rest_and_gives_the_threads_back(
    two_threads: None, four_images: list[LabelledImage]
) -> None:
    broken = [*four_images[:1], replace(four_images[1], read_bytes=lambda: b"no image"), *four_images[2:]]
    with pytest.raises(ValueError, match=four_images[1].stem):
        evaluate(FelzenszwalbSegmenter(), broken)
    assert torch.get_num_threads() == 2
