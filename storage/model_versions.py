"""The models of a dataset: `models/<model_id>/` holds a version's weights, its card, its curves and its history.

A version's id contains the hash of its weights, so that writing a version again changes nothing. The card is written
last; a folder without a card is no version.
"""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from storage.errors import Corrupt, NotFound
from storage.objects.local import LocalStore
from storage.objects.stores import ObjectStore

WEIGHTS_NAME = "model.safetensors"
"""File name of a version's weights."""
CARD_NAME = "model.json"
"""File name of a version's card."""


class ModelVersions:
    """Model versions of one dataset; `dataset.models` is an instance."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def publish(self, model_id: str, files: Mapping[str, Path]) -> str:
        """Write the files of a model version, the card last, and return the address of the weights.

        Args:
            model_id: Id of the version.
            files: Paths of the files to copy, by file name in the version; WEIGHTS_NAME and CARD_NAME are required.

        Raises:
            ValueError: The weights or the card are missing.
        """
        missing = {WEIGHTS_NAME, CARD_NAME} - set(files)
        if missing:
            raise ValueError(f"model {model_id}: got files {sorted(files)}, expected {sorted(missing)} among them")
        for name in sorted(files, key=lambda name: name == CARD_NAME):
            self._store.put_file(_key(model_id, name), files[name])
        return f"{self._store.uri}/{_key(model_id, WEIGHTS_NAME)}"

    def ids(self) -> list[str]:
        """List the ids of all versions, in alphabetical order."""
        return sorted(key.split("/")[1] for key in self._store.list("models/") if key.endswith(f"/{CARD_NAME}"))

    def card(self, model_id: str) -> dict[str, Any]:
        """Read the card of a model version.

        Raises:
            NotFound: There is no such version.
            Corrupt: The card is not a JSON object.
        """
        key = _key(model_id, CARD_NAME)
        try:
            with self._store.open(key) as source:
                card = json.load(source)
        except ValueError as error:
            raise Corrupt(f"{self._store.uri}/{key}: not JSON ({error}); publish the model again") from error
        if not isinstance(card, dict):
            raise Corrupt(f"{self._store.uri}/{key}: got a {type(card).__name__}, expected a JSON object")
        return card

    def fetch(self, model_id: str, folder: Path) -> Path:
        """Copy the weights and the card of a model version to `folder`/<model_id>/ and return the path of the weights.

        Each file is replaced in one step, so that several processes may use the same folder at a time.

        Raises:
            NotFound: There is no such version; the message names the known versions.
        """
        known = self.ids()
        if model_id not in known:
            raise NotFound(f"{self._store.uri}: no model {model_id!r}; there are: {', '.join(known) or 'none'}")
        copies = LocalStore(folder)
        for name in (WEIGHTS_NAME, CARD_NAME):
            with self._store.open(_key(model_id, name)) as source:
                copies.write(f"{model_id}/{name}", partial(shutil.copyfileobj, source))
        return copies.root / model_id / WEIGHTS_NAME


def _key(model_id: str, name: str) -> str:
    return f"models/{model_id}/{name}"
