"""What the commit record of an image shard says about its photos, beside images and rejects."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True)
class IngestStats:
    """Counts of one image shard."""

    photos: int = 0
    """Photos the shard was planned from."""
    unchanged: int = 0
    """Photos known before under the same name: neither stored again nor rejected."""
    of_earlier_settings: int = 0
    """Of the unchanged, those whose size, license and country are still those of other settings."""
    stored_as_they_came: int = 0
    """Images whose stored bytes are those of the photo."""
    others: Mapping[str, object] = field(default_factory=dict)
    """Statistics that this version does not know, kept as they are."""

    def to_json(self) -> dict[str, object]:
        """Return the form that a commit record holds."""
        counts = asdict(self)
        return {**counts.pop("others"), **counts}

    @staticmethod
    def from_json(content: Mapping[str, object]) -> "IngestStats":
        """Read what a commit record holds; a count that is missing is 0.

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
