"""Faces and licence plates in the images that leave: which detectors searched them, and whether that is enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from stages.ingest.privacy import Kind
from stages.release.config import ReleaseConfig
from storage.dataset import Dataset

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Deidentification:
    """Searches and concealed regions of the images that leave, by kind: `faces` and `plates`. No boxes leave."""

    images: int
    """Number of images that leave."""
    unsearched: Mapping[str, int]
    """Number of images that no detector of the kind searched."""
    detectors: Mapping[str, Mapping[str, int]]
    """Number of images that each detector searched, by its name."""
    regions: Mapping[str, int]
    """Number of regions that were made unrecognisable."""

    def is_complete(self, config: ReleaseConfig) -> bool:
        """Tell whether every image was searched for faces, and for licence plates by a detector or by people."""
        return not self.unsearched["faces"] and (not self.unsearched["plates"] or config.plates_reviewed)

    def check(self, config: ReleaseConfig) -> None:
        """Check that the images may leave.

        Raises:
            ValueError: Images were not searched for faces or licence plates, and nobody says that they may leave so.
        """
        if config.not_deidentified or self.is_complete(config):
            return
        all_the_same = "or, after looking at the images, give --not-deidentified, which the card and the manifest say"
        if self.unsearched["faces"]:
            raise ValueError(
                f"{self.unsearched['faces']} of the {self.images} images to release were not searched for faces: "
                "ingest the photos into a new dataset with --set ingest.privacy.faces=centerface, "
                f"{all_the_same}"
            )
        raise ValueError(
            f"{self.unsearched['plates']} of the {self.images} images to release were not searched for licence plates: "
            "let people look for them and give --plates-reviewed, ingest the photos into a new dataset with "
            f"--set ingest.privacy.plates=PATH, {all_the_same}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"unsearched": self.unsearched, "detectors": self.detectors, "regions": self.regions}


def read_deidentification(dataset: Dataset, snapshot: str, image_ids: np.ndarray) -> Deidentification:
    """Read what detectors did to the images with these ids."""
    sql = "SELECT image_id, kind, detector, 0 AS region FROM privacy_searches UNION ALL "
    sql += "SELECT image_id, kind, detector, 1 AS region FROM privacy_regions"
    rows = dataset.query(sql, snapshot)
    rows = rows.filter(np.isin(rows.column("image_id").to_numpy(), image_ids))
    ids, region = (rows.column(name).to_numpy() for name in ("image_id", "region"))
    kinds, detectors = (np.array(rows.column(name).to_pylist(), np.str_) for name in ("kind", "detector"))
    searches = region == 0
    return Deidentification(
        images=len(image_ids),
        unsearched={kind: len(image_ids) - len(np.unique(ids[searches & (kinds == kind)])) for kind in KINDS},
        detectors={kind: _counts(detectors[searches & (kinds == kind)]) for kind in KINDS},
        regions={kind: int(np.sum(~searches & (kinds == kind))) for kind in KINDS},
    )


def _counts(names: np.ndarray) -> dict[str, int]:
    found, counts = np.unique(names, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
