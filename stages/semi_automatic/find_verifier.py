"""The mask verifier of a dataset that fits a model."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from engine.verifier.verifier import KIND, Verifier, load_verifier
from storage.dataset import Dataset


def find_verifier(dataset: Dataset, model_ids: Collection[str]) -> Verifier | None:
    """Load the verifier that was fitted on the most verdicts with one of these SAMs; None where there is none.

    Raises:
        ValueError: The verifier is damaged, or reads features that this version does not compute.
    """
    cards = {version: dataset.models.card(version) for version in dataset.models.ids()}
    fitting = {
        version: int(card.get("metrics", {}).get("masks", 0))
        for version, card in cards.items()
        if card.get("kind") == KIND and card.get("model_id") in model_ids
    }
    if not fitting:
        return None
    best = max(fitting, key=lambda version: (fitting[version], version))
    with tempfile.TemporaryDirectory() as folder:
        return load_verifier(dataset.models.fetch(best, Path(folder)))
