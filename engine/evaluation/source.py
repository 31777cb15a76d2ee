"""Where the labelled images of an evaluation come from: anything that lists them and says how many have no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.labelled import LabelledImage, load_folder, unlabelled_images


class ImageSource(Protocol):
    """Labelled images, wherever they lie; each image knows how to read its own bytes."""

    def images(self) -> Sequence[LabelledImage]:
        """List the labelled images, in an order that is always the same."""

    def count_unlabelled(self) -> int:
        """Count the images that have no labels and are not in the list."""


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """A folder of images with SA-1B annotation files beside them (`engine.labelled` describes the form)."""

    folder: Path

    def images(self) -> Sequence[LabelledImage]:
        """List the folder's labelled images.

        Raises:
            ValueError: as `load_folder`.
        """
        return load_folder(self.folder)

    def count_unlabelled(self) -> int:
        """Count the images without a JSON beside them."""
        return len(unlabelled_images(self.folder))
