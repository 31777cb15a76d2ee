"""The models of a dataset: `models/<model_id>/` holds a version's weights, its card, its curves and its history.

Weights carry their hash in the version's id, so that a version is written again without harm; the card is written last,
and a folder without one is no version.
"""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from storage.errors import NotFound
from storage.objects.local import LocalStore
from storage.objects.stores import ObjectStore

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "model.json"


def publish_version(store: ObjectStore, model_id: str, files: Mapping[str, Path]) -> str:
    """Write a version's files, the card last; returns where its weights are.

    Raises ValueError when the weights or the card are missing.
    """
    missing = {WEIGHTS_NAME, CARD_NAME} - set(files)
    if missing:
        raise ValueError(f"model {model_id}: got files {sorted(files)}, expected {sorted(missing)} among them")
    for name in sorted(files, key=lambda name: name == CARD_NAME):
        store.put_file(_key(model_id, name), files[name])
    return f"{store.uri}/{_key(model_id, WEIGHTS_NAME)}"


def list_versions(store: ObjectStore) -> list[str]:
    """The ids of the dataset's models, in alphabetical order."""
    return sorted(key.split("/")[1] for key in store.list("models/") if key.endswith(f"/{CARD_NAME}"))


def fetch_version(store: ObjectStore, model_id: str, folder: Path) -> Path:
    """Copy a version's weights and card to `folder`/<model_id>/ and return the path of the weights.

    Each file is replaced at once: processes that share the folder may fetch and load at the same time. Raises NotFound,
    naming the versions there are.
    """
    there = list_versions(store)
    if model_id not in there:
        raise NotFound(f"{store.uri}: no model {model_id!r}; there are: {', '.join(there) or 'none'}")
    copies = LocalStore(folder)
    for name in (WEIGHTS_NAME, CARD_NAME):
        with store.open(_key(model_id, name)) as source:
            copies.write(f"{model_id}/{name}", partial(shutil.copyfileobj, source))
    return copies.root / model_id / WEIGHTS_NAME


def _key(model_id: str, name: str) -> str:
    return f"models/{model_id}/{name}"
