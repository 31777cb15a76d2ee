"""Statistics on photos in the commit record of an image shard, beside images and rejects."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


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
    others: Mapping[str, object] = field(default_factory=dict)
    """Statistics that this version does not know, kept unchanged."""

    def to_json(self) -> dict[str, object]:
        """Return the statistics in the form that a commit record holds."""
        counts = asdict(self)
        return {**counts.pop("others"), **counts}

    @staticmethod
    def from_json(content: Mapping[str, object]) -> "IngestStats":
        """Read the statistics from a commit record; a missing count is 0.

        Raises:
            ValueError: A count is no whole number.
        """
        counts: dict[str, int] = {}
        others: dict[str, object] = {}
        for name, value in content.items():
            if name not in _COUNTS:
                others[name] = value
            elif isinstance(value, int):
                counts[name] = value
            else:
                raise ValueError(f"statistics of an image shard: {name} is {value!r}, expected a whole number")
        return IngestStats(**counts, others=others)


_COUNTS = set(IngestStats.__dataclass_fields__) - {"others"}
