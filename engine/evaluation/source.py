"""Sources of labelled images for an evaluation: objects that list the images and count those without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.labelled import LabelledImage, load_folder, unlabelled_images


class ImageSource(Protocol):
    """A source of labelled images, independent of where the images are stored.

    The bytes of an image are read by the `read_bytes` of its `LabelledImage`.
    """

    def images(self) -> Sequence[LabelledImage]:
        """List the labelled images, always in the same order."""

    def count_unlabelled(self) -> int:
        """Count the images that have no labels and are therefore not in the list of images."""


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """A folder of images, each beside its SA-1B annotation file; `engine.labelled` describes the layout."""

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
