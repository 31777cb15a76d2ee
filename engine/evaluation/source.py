"""Sources of labelled images for an evaluation: objects that list the images and count those without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.labelled import LabelledImage, load_folder, unlabelled_images


class ImageSource(Protocol):
    """A source of labelled images, wherever they are stored; each image reads its own bytes."""

    def images(self) -> Sequence[LabelledImage]:
        """List the labelled images, always in the same order."""

    def count_unlabelled(self) -> int:
        """Count the images that have no labels and are therefore not in the list of images."""


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """A folder of images with SA-1B annotation files beside them; `engine.labelled` describes the layout."""

    folder: Path

    def images(self) -> Sequence[LabelledImage]:
        """List the folder's labelled images.

        Raises:
            ValueError: The folder does not exist, has no labelled image, or has labels that cannot be used (see
                `load_folder`).
        """
        return load_folder(self.folder)

    def count_unlabelled(self) -> int:
        """Count the images of the folder that have no JSON file beside them."""
        return len(unlabelled_images(self.folder))
