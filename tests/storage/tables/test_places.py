from pathlib import Path

import pytest

from storage.dataset import Dataset
from storage.errors import StoreError
from tests.small_dataset import small_dataset


@pytest.mark.parametrize("name", ["a[1]", "b]", "c^2", "d|e", "back\\slash", "tab\there", "my%20photos"])
def test_a_folder_that_cannot_hold_tables_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    for create in (Dataset.create, Dataset.open_or_create, Dataset.check_place):
        with pytest.raises(StoreError, match="which the library of the tables cannot hold; expected one without"):
            create(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_odd_names_holds_a_dataset_whose_tables_are_read(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "50% of ä 'photos' #1 (new) & {more} ~日本,;=?@$!+")
    dataset.fold()
    (row,) = Dataset.open(dataset.uri).query("SELECT count(*) AS masks FROM masks").to_pylist()
    assert row["masks"] > 0
