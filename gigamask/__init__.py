"""gigamask: photos in, a dataset of segmentation masks out.

    import gigamask

    model = gigamask.load_model("seed")
    image = gigamask.read_photo("photo.jpg")
    masks = gigamask.generate_masks(model, image).masks

This file is the public API: everything in `__all__`, taken from the packages `engine`, `stages` and `storage`.
Importing gigamask loads none of these packages; the first use of a name loads the module that defines it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine import images
    from engine.automatic.config import PRESETS, GenerateConfig
    from engine.automatic.generate import Generated, GeneratedMask, generate_masks
    from engine.interactive.segment import Candidates, Click, ObjectPrompt, Segmenter
    from engine.interactive.zoom import make_segmenter
    from engine.model.weights import Model, load_model
    from engine.training.recipes import paper_recipe, seed_recipe
    from engine.training.train import TrainConfig
    from stages.fully_automatic.in_process import mask_images
    from stages.ingest.config import IngestConfig, PrivacyConfig
    from stages.ingest.ingest import IngestReport, ingest_photos
    from stages.ingest.read_photo import read_photo
    from stages.training.in_process import train_on_snapshot
    from stages.training.job import DataConfig, TrainedModel
    from stages.training.snapshot_source import Sample, training_samples
    from storage import rle
    from storage.dataset import Dataset
    from storage.errors import Conflict, Corrupt, NotFound, StoreError
    from storage.records import ImageRecord, MaskRecord, Provenance, Reject
    from storage.rle import Rle
    from storage.tables.limits import QueryLimits
    from storage.tables.snapshots import Snapshot

    __version__: str

__all__ = [  # noqa: RUF022 - in the order in which one needs them
    # The masks of one photo
    "read_photo",
    "load_model",
    "Model",
    "generate_masks",
    "GenerateConfig",
    "PRESETS",
    "Generated",
    "GeneratedMask",
    # Masks from clicks and boxes
    "make_segmenter",
    "Segmenter",
    "Click",
    "ObjectPrompt",
    "Candidates",
    # Datasets
    "Dataset",
    "ingest_photos",
    "IngestConfig",
    "PrivacyConfig",
    "IngestReport",
    "mask_images",
    "Snapshot",
    "QueryLimits",
    "ImageRecord",
    "MaskRecord",
    "Provenance",
    "Reject",
    # Training
    "training_samples",
    "Sample",
    "train_on_snapshot",
    "TrainConfig",
    "DataConfig",
    "TrainedModel",
    "seed_recipe",
    "paper_recipe",
    # Pixels and run lengths (modules)
    "images",
    "rle",
    "Rle",
    # Errors
    "StoreError",
    "NotFound",
    "Conflict",
    "Corrupt",
    "__version__",
]

_HOMES = {
    "engine": ("images",),
    "engine.automatic.config": ("PRESETS", "GenerateConfig"),
    "engine.automatic.generate": ("Generated", "GeneratedMask", "generate_masks"),
    "engine.interactive.segment": ("Candidates", "Click", "ObjectPrompt", "Segmenter"),
    "engine.interactive.zoom": ("make_segmenter",),
    "engine.model.weights": ("Model", "load_model"),
    "engine.training.recipes": ("paper_recipe", "seed_recipe"),
    "engine.training.train": ("TrainConfig",),
    "stages.fully_automatic.in_process": ("mask_images",),
    "stages.ingest.config": ("IngestConfig", "PrivacyConfig"),
    "stages.ingest.ingest": ("IngestReport", "ingest_photos"),
    "stages.ingest.read_photo": ("read_photo",),
    "stages.training.in_process": ("train_on_snapshot",),
    "stages.training.job": ("DataConfig", "TrainedModel"),
    "stages.training.snapshot_source": ("Sample", "training_samples"),
    "storage": ("rle",),
    "storage.dataset": ("Dataset",),
    "storage.errors": ("Conflict", "Corrupt", "NotFound", "StoreError"),
    "storage.records": ("ImageRecord", "MaskRecord", "Provenance", "Reject"),
    "storage.rle": ("Rle",),
    "storage.tables.limits": ("QueryLimits",),
    "storage.tables.snapshots": ("Snapshot",),
}
"""Public names by the module that defines them; the imports for type checkers repeat the same names."""
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # else a type checker would take any misspelt name for one of these

    def __getattr__(name: str) -> Any:
        """Load a public name from the module that defines it, once (PEP 562)."""
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("gigamask")
        elif name in _HOME_OF:
            home = _HOME_OF[name]
            is_module = home in ("engine", "storage")
            value = importlib.import_module(f"{home}.{name}" if is_module else home)
            value = value if is_module else getattr(value, name)
        else:
            raise AttributeError(f"module 'gigamask' has no attribute {name!r}; see gigamask.__all__ for its names")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, so that an interpreter completes them before they are loaded."""
    return sorted({*globals(), *__all__})
