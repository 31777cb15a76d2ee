"""Names of models in a dataset: `promoted`, and the ids of its versions; everything else is a name or a path."""

from pathlib import Path

from engine.model.find import SHIPPED, WEIGHT_SUFFIXES
from engine.model.released import RELEASED, models_folder
from storage.dataset import Dataset
from storage.errors import NotFound

PROMOTED = "promoted"
"""Name of the model that a dataset's newest generation promotes."""
FIRST_PROMOTED = "seed"
"""Name of the model that counts as promoted until the first promotion."""


def is_model_elsewhere(name: str) -> bool:
    """Whether a name is surely none of a dataset: that of a shipped or released model, or of a weights file."""
    return name in SHIPPED or name in RELEASED or name.endswith(WEIGHT_SUFFIXES)


def find_in_dataset(dataset: Dataset, name: str, folder: Path | None = None) -> str:
    """Copy the version that `name` means to this machine, and return the path of its weights.

    Args:
        dataset: Dataset of the versions.
        name: `promoted`, the id of a version, or any other name or path, which is returned as it is.
        folder: Folder of the copies; None for the folder of versions below that of downloaded models.

    Raises:
        NotFound: The promoted version is missing in the dataset.
    """
    model_id = name
    if name == PROMOTED:
        newest = dataset.promotions.newest()
        if newest is None:
            return FIRST_PROMOTED
        model_id = newest.promoted
    elif name not in dataset.models.ids():
        return name
    return str(dataset.models.fetch(model_id, folder or models_folder() / "versions"))


def find_by_address(uri: str, name: str) -> str:
    """Do what `find_in_dataset` does for the dataset at an address; where there is none yet, nothing was promoted.

    Raises:
        StoreError: The dataset cannot be read.
    """
    try:
        dataset = Dataset.open(uri)
    except NotFound:
        return FIRST_PROMOTED if name == PROMOTED else name
    return find_in_dataset(dataset, name)
