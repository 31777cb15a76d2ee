"""Detectors on disk: the card, strict loading, and the check that detector and SAM belong together."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.detector.card import encoder_id
from engine.detector.weights import load_detector, save_detector
from engine.model.weights import Model, load_model, save_model
from engine.training.initialise import fresh_sam
from tests.engine.detector.square_detector import SIZES, square_card, square_model, trained_head
from tests.engine.training.tiny import TINY_SAM
from tests.tiny_network import tiny_card


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_detector(tmp_path / "squares.safetensors", trained_head()[0], square_card())
    return tmp_path / "squares.safetensors"


def change_card(path: Path, **fields: object) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | fields))


def test_a_saved_detector_loads_with_its_card_and_an_id_from_its_content(saved: Path) -> None:
    detector = load_detector(saved, square_model())
    assert detector.card == square_card()
    assert detector.detector_id == save_detector(saved, trained_head()[0], square_card())
    embeddings = torch.randn(1, SIZES.embedding_width, SIZES.embedding_side, SIZES.embedding_side)
    with torch.inference_mode():
        loaded, trained = detector.head(embeddings), trained_head()[0](embeddings)
    assert torch.allclose(loaded.logits_BK, trained.logits_BK, atol=0.02), "fp16 on disk"


def test_a_detector_is_refused_for_another_image_encoder(saved: Path) -> None:
    other = Model(name="other", model_id="other-1", sam=fresh_sam(TINY_SAM, seed=6).eval(), card=tiny_card(TINY_SAM))
    with pytest.raises(ValueError, match="other-1 come from another image encoder; train one for it"):
        load_detector(saved, other)


def test_a_sam_whose_decoder_alone_was_trained_keeps_its_detector(saved: Path, tmp_path: Path) -> None:
    sam = fresh_sam(TINY_SAM, seed=5).eval()
    with torch.no_grad():
        sam.mask_decoder.iou_token.weight.add_(1.0)
    save_model(tmp_path / "sam.safetensors", sam, tiny_card(TINY_SAM))
    assert encoder_id(load_model(tmp_path / "sam.safetensors").sam) == encoder_id(square_model().sam)
    assert load_detector(saved, load_model(tmp_path / "sam.safetensors")).card.name == "squares"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "verifier"}, "no card of a detector"),
        ({"surprise": 1}, "unknown fields \\['surprise'\\]"),
        ({"score_threshold": "high"}, "card.score_threshold: got 'high'"),
        ({"score_threshold": 1.5}, "card.score_threshold: got 1.5"),
        ({"config": {"width": 16}}, "detector card, config"),
        ({"weights_sha256": "0" * 64}, "the weights are damaged or another model's"),
    ],
)
def test_a_card_that_cannot_be_right_is_refused(saved: Path, fields: dict[str, object], message: str) -> None:
    change_card(saved, **fields)
    with pytest.raises(ValueError, match=message):
        load_detector(saved, square_model())


def test_names_that_are_no_detector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown detector 'best': expected seed-detector"):
        load_detector("best", square_model())
    with pytest.raises(ValueError, match="no such weights file"):
        load_detector(tmp_path / "none.safetensors", square_model())
    with pytest.raises(ValueError, match="its config differs"):
        save_detector(
            tmp_path / "a.safetensors", trained_head()[0], replace(square_card(), config=replace(SIZES, width=8))
        )


def test_a_detector_is_not_taken_for_a_sam(saved: Path) -> None:
    with pytest.raises(ValueError, match="got the card of a detector, expected that of a SAM"):
        load_model(saved)
