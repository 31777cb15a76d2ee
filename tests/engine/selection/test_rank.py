"""Rankings follow from embeddings and doubts that are written by hand; features come from a real, tiny network."""

import numpy as np
import pytest

from engine.selection.config import CHOOSE_BY, RANKINGS, Ranking
from engine.selection.rank import ImageFeatures, describe_image, rank_images
from tests.tiny_network import tiny_model

NOTHING = np.zeros((0, 2), dtype=np.float32)


def features(angle: float, spread: float = 0.1, disagreement: float = 0.1) -> ImageFeatures:
    """Make features whose embedding points into a direction, in degrees."""
    radians = np.deg2rad(angle)
    direction_2 = np.array([np.cos(radians), np.sin(radians)], dtype=np.float32)
    return ImageFeatures(embedding_C=direction_2, iou_spread=spread, disagreement=disagreement)


def ranked(ranking: Ranking, images: list[ImageFeatures], known: np.ndarray = NOTHING, noise: float = 0.0) -> list[int]:
    return rank_images(ranking, images, known, np.random.default_rng(0), noise=noise)


def test_diversity_takes_what_is_farthest_from_all_that_was_taken() -> None:
    images = [features(angle) for angle in (0, 20, 170, 90)]
    assert ranked("diversity", images) == [0, 2, 3, 1]


def test_diversity_keeps_away_from_images_that_people_were_asked_about() -> None:
    images = [features(angle) for angle in (0, 20, 170, 90)]
    known = np.stack([features(angle).embedding_C for angle in (0, 170)])
    assert ranked("diversity", images, known)[0] == 3


@pytest.mark.parametrize(("ranking", "first"), [("uncertainty", 1), ("disagreement", 2)])
def test_doubt_comes_first(ranking: Ranking, first: int) -> None:
    images = [features(0), features(90, spread=0.3), features(180, disagreement=0.3)]
    assert ranked(ranking, images)[0] == first


def test_the_mix_takes_doubtful_images_among_equally_distant_ones() -> None:
    images = [features(0), features(90, spread=0.2), features(-90, spread=0.3, disagreement=0.3)]
    known = np.stack([features(180).embedding_C, features(0).embedding_C])
    assert ranked("mix", images, known) == [2, 1, 0]


@pytest.mark.parametrize("ranking", RANKINGS)
def test_every_image_is_ranked_once_and_duplicates_come_last(ranking: Ranking) -> None:
    images = [features(angle, spread=0.2 + angle / 1000, disagreement=0.3) for angle in (0, 1, 60, 120, 121)]
    known = np.stack([features(300).embedding_C])
    order = ranked(ranking, [*images, features(301, spread=0.9, disagreement=0.9)], known)
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    assert set(order[3:]) == {5, *({0, 1} - set(order[:3])), *({3, 4} - set(order[:3]))}


def test_noise_draws_another_order_from_another_state_and_the_same_from_the_same() -> None:
    images = [features(40 * number, spread=0.1) for number in range(9)]
    orders = {
        tuple(rank_images("uncertainty", images, NOTHING, np.random.default_rng(seed), noise=1.0))
        for seed in (0, 0, 1, 2)
    }
    assert len(orders) == 3


def test_features_of_a_wide_picture_are_in_their_ranges() -> None:
    model = tiny_model(zooms_in=False)
    rng = np.random.default_rng(0)
    found = describe_image(model, rng.integers(0, 256, (40, 120, 3), dtype=np.uint8))
    assert found.embedding_C.dtype == np.float32
    assert np.linalg.norm(found.embedding_C) == pytest.approx(1, abs=1e-5)
    assert found.iou_spread >= 0
    assert 0 <= found.disagreement <= 1
    with pytest.raises(ValueError, match="expected uint8"):
        describe_image(model, np.zeros((4, 4)))


def test_an_image_is_like_itself_and_its_brighter_self_more_than_like_another() -> None:
    model = tiny_model(zooms_in=False)
    rng = np.random.default_rng(1)
    picture, other = (rng.integers(0, 200, (64, 64, 3), dtype=np.uint8) for _ in range(2))
    other[:32] = 255
    found = [describe_image(model, each).embedding_C for each in (picture, picture + np.uint8(3), other)]
    assert found[0] @ found[1] > found[0] @ found[2]


def test_a_round_may_choose_by_every_ranking() -> None:
    assert ("random", *RANKINGS) == CHOOSE_BY
