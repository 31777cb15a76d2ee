"""The photographs of a loop: no part shares one with another, and each round has something to hold back."""

from pathlib import Path

import pytest

from flows.loop.config import LoopSettings
from flows.loop.split import divide_into_rounds, make_photo_set, split_photos
from tests.flows.loop.squares import write_squares


def test_the_parts_share_no_photograph_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    images = write_squares(tmp_path, 10)
    parts = split_photos(images, 0, LoopSettings())
    stems = [[image.stem for image in part] for part in (parts.evaluation, parts.gate, parts.pool)]
    assert [len(part) for part in stems] == [4, 2, 4]
    assert sorted(stem for part in stems for stem in part) == sorted(image.stem for image in images)
    assert split_photos(images, 0, LoopSettings()) == parts
    assert split_photos(images, 1, LoopSettings()) != parts
    with pytest.raises(ValueError, match="got 5 photographs with masks, expected enough for 2 to measure on"):
        split_photos(images[:5], 0, LoopSettings())
    with pytest.raises(ValueError, match="leave a part to annotate"):
        LoopSettings(evaluation_fraction=0.5, gate_fraction=0.5)


def test_each_image_of_a_photo_set_has_the_truth_of_its_photograph(tmp_path: Path) -> None:
    images = write_squares(tmp_path / "squares", 3)
    photos = make_photo_set(images, tmp_path / "set")
    assert len(photos.image_ids) == 3
    fold = photos.dataset.fold().newest
    assert make_photo_set(images, tmp_path / "set").truth == photos.truth
    assert photos.dataset.fold().newest == fold
    rows = photos.dataset.query("SELECT image_id, source FROM images").to_pylist()
    by_name = {f"{image.domain}--{image.stem}.png": image for image in images}
    for row in rows:
        assert photos.truth[row["image_id"]] == by_name[Path(row["source"]).name].masks_by_annotator[0]


def test_every_round_has_an_image_to_train_on_and_one_to_hold_back() -> None:
    rounds, every = divide_into_rounds(list(range(1, 21)), 3, seed=0)
    assert every == 5
    assert sorted(each for some in rounds for each in some) == list(range(1, 21))
    for some in rounds:
        assert any(each % every == 0 for each in some)
        assert any(each % every for each in some)
    assert divide_into_rounds([1, 2, 3, 4], 2, seed=0)[1] == 2
    with pytest.raises(ValueError, match="got 3 photographs for 2 rounds"):
        divide_into_rounds([1, 3, 5], 2, seed=0)
