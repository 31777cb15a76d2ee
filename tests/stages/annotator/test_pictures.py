from pathlib import Path

import pytest

from stages.annotator import pictures
from stages.annotator.pictures import Pictures
from stages.stored_pixels import read_stored_pixels
from storage.dataset import Dataset
from storage.errors import Erased
from tests.small_dataset import photograph, small_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    return dataset


def test_an_image_that_was_erased_is_one_clear_error(dataset: Dataset) -> None:
    image_id = photograph(1)[0].image_id
    dataset.erase([image_id], "a person's wish")
    with pytest.raises(Erased, match="because: a person's wish"):
        Pictures(dataset, max_bytes=10**6).get(image_id)
    with pytest.raises(Erased, match="because: a person's wish"):
        read_stored_pixels(dataset, image_id)


def test_an_image_that_is_erased_later_leaves_the_memory(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    some = Pictures(dataset, max_bytes=10**6)
    images = [photograph(number) for number in (1, 2)]
    assert [some.get(image.image_id).data for image, _ in images] == [data for _, data in images]
    dataset.erase([images[0][0].image_id], "a person's wish")
    monkeypatch.setattr(pictures, "_ERASURES_EVERY_S", 0.0)
    with pytest.raises(Erased):
        some.get(images[0][0].image_id)
    assert some.get(images[1][0].image_id).data == images[1][1]
    assert set(some._kept) == {images[1][0].image_id}
