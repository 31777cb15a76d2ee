"""Prefilled masks of a round's images, made by models."""

from pathlib import Path

import pytest
import torch

from engine.automatic.config import GenerateConfig
from engine.detector.weights import load_detector
from engine.model.weights import load_model, save_model
from stages.rounds.choose import ChosenImage
from stages.rounds.open import RoundRequest
from stages.semi_automatic.prefill import PrefillConfig
from stages.semi_automatic.prefill_round import prefill_round
from stages.semi_automatic.prefill_sources import masks_of_detector, masks_of_generator
from stages.training.gate import publish_version, start_chain
from storage import rle
from storage.errors import NotFound
from storage.protocol.promotions import Decided, Decision
from tests.engine.detector.square_detector import square_detector, square_model
from tests.small_dataset import SIDE, small_dataset

LOOSE = PrefillConfig(min_box_score=0.0, min_predicted_iou=0.0, min_stability=0.0, min_region_px=4)


def test_each_image_gets_the_masks_that_its_model_makes(tmp_path: Path) -> None:
    dataset, model = small_dataset(tmp_path / "dataset"), load_model("seed")
    dataset.fold()
    ids = sorted(dataset.known_image_ids())[:2]
    images = [ChosenImage(image_id=image_id, height=SIDE, width=SIDE) for image_id in ids]
    sources = (
        masks_of_detector(model, load_detector("seed-detector", model), LOOSE),
        masks_of_generator(model, GenerateConfig(points_per_side=4, min_region_px=4)),
    )
    for source in sources:
        given = source(dataset, images)
        assert sorted(given) == ids
        masks = [mask for of_image in given.values() for mask in of_image]
        assert masks
        assert {mask.model_id for mask in masks} == {model.model_id}
        assert all((mask.rle.height, mask.rle.width) == (SIDE, SIDE) and rle.area(mask.rle) for mask in masks)
        assert all(mask.predicted_iou is not None and mask.stability_score is not None for mask in masks)
        assert all(len({mask.mask for mask in of_image}) == len(of_image) for of_image in given.values())
        with pytest.raises(NotFound, match="no image 5"):
            source(dataset, [ChosenImage(image_id=5, height=SIDE, width=SIDE)])


@pytest.mark.parametrize("encoder_differs", [False, True])
def test_a_round_that_names_no_model_is_prefilled_by_the_promoted_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoder_differs: bool
) -> None:
    """The detector's boxes need the encoder that it was made for."""
    dataset, seed = small_dataset(tmp_path / "dataset"), load_model("seed")
    dataset.fold()
    started = start_chain(dataset, tmp_path)
    changed = (
        next(seed.sam.image_encoder.parameters()) if encoder_differs else seed.sam.prompt_encoder.no_mask_embed.weight
    )
    torch.nn.init.constant_(changed, 0.01)
    save_model(tmp_path / "better.safetensors", seed.sam, seed.card)
    better = publish_version(dataset, str(tmp_path / "better.safetensors"), tmp_path)
    (image_id, *_) = sorted(dataset.known_image_ids())
    images = [ChosenImage(image_id=image_id, height=SIDE, width=SIDE)]

    def made_by(source: str) -> set[str]:
        given = prefill_round(dataset, RoundRequest(stage="semi_automatic", prefill=source), images)
        return {mask.model_id for masks in given.values() for mask in masks}

    assert made_by("generator") == {started.model_id}
    dataset.promotions.add(
        Decided(
            decision=Decision.PROMOTION,
            model_id=better,
            over=started.model_id,
            key="by hand",
            made_by="test",
            reason="test",
        )
    )
    assert made_by("detector") <= {started.model_id if encoder_differs else better}
    assert ("has another image encoder" in caplog.text) == encoder_differs
    if not encoder_differs:
        assert made_by("generator") == {better}


def test_a_detector_of_another_encoder_is_refused_before_any_image_is_read() -> None:
    with pytest.raises(ValueError, match="come from another image encoder"):
        masks_of_detector(load_model("seed"), square_detector())
    masks_of_detector(square_model(), square_detector())  # its own is taken


@pytest.mark.parametrize("source", ["detector", "generator", "stage = 'fully_automatic'"])
def test_a_round_is_prefilled_by_the_source_that_it_names(tmp_path: Path, source: str) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    ids = sorted(dataset.known_image_ids())[:4]
    images = [ChosenImage(image_id=image_id, height=SIDE, width=SIDE) for image_id in ids]
    request = RoundRequest(stage="semi_automatic", prefill=source, empty_fraction=0.5)
    given = prefill_round(dataset, request, images)
    assert len(given) == 2, "half of the images begin empty"
    assert set(given) <= set(ids)
    of_dataset = source.startswith("stage")
    assert all(bool(mask.source) == of_dataset for masks in given.values() for mask in masks)
