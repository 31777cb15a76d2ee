"""A detector small enough for tests: it learns squares on plain grounds, on the embeddings of a tiny fresh SAM."""

from functools import cache

import numpy as np

from engine.detector.card import DetectorCard, encoder_id
from engine.detector.config import DetectorConfig
from engine.detector.head import DetectorHead
from engine.detector.train import DetectorTraining, Losses, train_head
from engine.detector.weights import Detector
from engine.detector.windows import EncodedWindows, boxes_of
from engine.model.sam import Sam
from engine.model.weights import Model
from engine.training.initialise import fresh_sam
from engine.training.sources import Cut
from tests.engine.training.tiny import TINY_SAM
from tests.tiny_network import tiny_card

SIDE = TINY_SAM.input_side
SIZES = DetectorConfig(
    embedding_width=TINY_SAM.width,
    embedding_side=TINY_SAM.embedding_side,
    input_side=SIDE,
    width=16,
    tower_depth=1,
    levels=3,
)
TRAINING = DetectorTraining(windows=64, passes=25, batch_size=8, learning_rate=5e-3, seed=3)


@cache
def square_model() -> Model:
    """Make the SAM with random weights whose embeddings the tests' detectors read."""
    sam = fresh_sam(TINY_SAM, seed=5).eval()
    return Model(name="tiny", model_id="tiny-0", sam=sam, card=tiny_card(TINY_SAM))


def square_image(rng: np.random.Generator, height: int = SIDE, width: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bright square of 16 to 40 px on a dark ground; its pixels, and its mask as bool [H, W]."""
    side = int(rng.integers(16, min(40, height, width)))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    mask_HW = np.zeros((height, width), dtype=bool)
    mask_HW[top : top + side, left : left + side] = True
    image_HW3 = np.where(mask_HW[..., None], 220, 40).astype(np.uint8).repeat(3, axis=2)
    return image_HW3, mask_HW


def square_cut(rng: np.random.Generator) -> Cut:
    """Cut a window with one square."""
    image_HW3, mask_HW = square_image(rng)
    return Cut(image_HW3=image_HW3, masks_NHW=mask_HW[None].astype(np.uint8))


def square_windows(sam: Sam, count: int) -> EncodedWindows:
    """Encode windows with one square each."""
    import torch

    cuts = [square_cut(np.random.default_rng([7, number])) for number in range(count)]
    with torch.inference_mode():
        embeddings = sam.encode(torch.stack([sam.preprocess(cut.image_HW3) for cut in cuts])).numpy()
    return EncodedWindows(
        embeddings_NCEE=embeddings.astype(np.float16),
        boxes_M4=np.concatenate([boxes_of(cut.masks_NHW) for cut in cuts]),
        ends_N=np.arange(1, count + 1),
    )


@cache
def trained_head() -> tuple[DetectorHead, Losses]:
    """Train a head on squares; about two seconds."""
    kept = Losses()

    def keep(step: int, losses: Losses) -> None:
        kept.of_steps = losses.of_steps

    windows = square_windows(square_model().sam, TRAINING.windows)
    return train_head(SIZES, TRAINING, windows, on_step=keep), kept


def square_card(score_threshold: float = 0.5) -> DetectorCard:
    """Make the card of the tests' detector."""
    return DetectorCard(
        name="squares",
        config=SIZES,
        encoder_id=encoder_id(square_model().sam),
        trained_with=square_model().model_id,
        score_threshold=score_threshold,
        training={"data": "squares"},
        metrics={},
        license="CC0-1.0",
        notes="",
    )


def square_detector(score_threshold: float = 0.5) -> Detector:
    """Make the detector of squares."""
    return Detector(detector_id="squares-0", head=trained_head()[0], card=square_card(score_threshold))
