"""Versions of models in a dataset: the card last, copies that are whole at every moment."""

from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.model_versions import CARD_NAME, WEIGHTS_NAME
from storage.objects.stores import ObjectInfo


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A version's files by name, as a training leaves them."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name, data in ((WEIGHTS_NAME, b"weights"), (CARD_NAME, b"{}"), ("curves.svg", b"<svg/>")):
        (folder / name).write_bytes(data)
    return {path.name: path for path in folder.iterdir()}


def test_a_version_is_known_once_its_card_is_there(
    dataset: Dataset, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file, known = dataset.store.put_file, []

    def put(key: str, path: Path) -> ObjectInfo:
        known.append(dataset.models.ids())
        return put_file(key, path)

    monkeypatch.setattr(dataset.store, "put_file", put)
    weights = dataset.models.publish("m-1", files)
    assert weights == f"{dataset.store.uri}/models/m-1/{WEIGHTS_NAME}"
    assert known == [[], [], []]
    assert dataset.models.ids() == ["m-1"]


@pytest.mark.parametrize("name", [WEIGHTS_NAME, CARD_NAME])
def test_a_version_without_weights_or_card_is_refused(dataset: Dataset, files: dict[str, Path], name: str) -> None:
    del files[name]
    with pytest.raises(ValueError, match=rf"expected \['{name}'\] among them"):
        dataset.models.publish("m-1", files)


def test_a_copy_that_is_being_read_stays_whole_while_it_is_fetched_again(
    dataset: Dataset, files: dict[str, Path], tmp_path: Path
) -> None:
    dataset.models.publish("m-1", files)
    path = dataset.models.fetch("m-1", tmp_path / "copies")
    with path.open("rb") as copy:
        files[WEIGHTS_NAME].write_bytes(b"others!")
        dataset.models.publish("m-1", files)
        assert dataset.models.fetch("m-1", tmp_path / "copies") == path
        assert copy.read() == b"weights"
    assert path.read_bytes() == b"others!"
    assert sorted(each.name for each in path.parent.iterdir()) == sorted([WEIGHTS_NAME, CARD_NAME])
