"""Statistics on photos in the commit record of an image shard, beside images and rejects."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stages.ingest.privacy import Concealer, Region


@dataclass(frozen=True, kw_only=True)
class IngestStats:
    """Counts of the photos of one image shard."""

    photos: int = 0
    """Number of photos that the shard was planned from."""
    unchanged: int = 0
    """Number of photos known before under the same name, which are neither stored again nor rejected."""
    of_earlier_settings: int = 0
    """Number of unchanged photos whose stored size, license and country come from other settings."""
    stored_as_they_came: int = 0
    """Number of images whose stored bytes are those of the photo."""
    privacy_searches: str = ""
    """Detectors that searched each image, as `privacy_stats` writes them; empty where none did."""
    privacy_regions: str = ""
    """Regions of images that were made unrecognisable, as `privacy_stats` writes them."""
    others: Mapping[str, object] = field(default_factory=dict)
    """Statistics that this version does not know, kept unchanged."""

    def to_json(self) -> dict[str, object]:
        """Return the statistics in the form that a commit record holds."""
        fields = asdict(self)
        others = fields.pop("others")
        return {**others, **{name: value for name, value in fields.items() if value or name not in _TEXTS}}

    @staticmethod
    def from_json(content: Mapping[str, object]) -> "IngestStats":
        """Read the statistics from a commit record; a missing count is 0.

        Raises:
            ValueError: A count is no whole number, or a text is no text.
        """
        fields: dict[str, Any] = {}
        others: dict[str, object] = {}
        for name, value in content.items():
            expected, what = (str, "a text") if name in _TEXTS else (int, "a whole number")
            if name not in _COUNTS | _TEXTS:
                others[name] = value
            elif isinstance(value, expected):
                fields[name] = value
            else:
                raise ValueError(f"statistics of an image shard: {name} is {value!r}, expected {what}")
        return IngestStats(**fields, others=others)


def privacy_stats(
    before: IngestStats, concealer: Concealer | None, regions_of: Mapping[int, Sequence[Region]]
) -> dict[str, str]:
    """Write which detectors searched the images of a shard, and what they found, as fields of `IngestStats`.

    The views `privacy_searches` and `privacy_regions` of `storage.tables.views` read these texts.

    Args:
        before: Statistics of the shard that a redo replaces, whose texts are kept.
        concealer: Detectors of the new images; None for none.
        regions_of: Regions of every new image, by its id.
    """
    detectors = concealer.detectors if concealer else ()
    searches = [f"{image_id} {each.kind} {each.name}" for image_id in regions_of for each in detectors]
    regions = [
        f"{image_id} {each.kind} {each.detector} {' '.join(map(str, each.box_xyxy))} {each.score:.4f}"
        for image_id, regions in regions_of.items()
        for each in regions
    ]
    return {
        "privacy_searches": ";".join(filter(None, (before.privacy_searches, *searches))),
        "privacy_regions": ";".join(filter(None, (before.privacy_regions, *regions))),
    }


_TEXTS = {"privacy_searches", "privacy_regions"}
_COUNTS = set(IngestStats.__dataclass_fields__) - _TEXTS - {"others"}
