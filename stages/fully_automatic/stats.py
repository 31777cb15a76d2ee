"""Statistics in the commit record of a mask shard on how its masks were made."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from engine.automatic.diagnostics import Diagnostics

MAX_WITHOUT_MASKS = 12
"""Maximum number of images without masks that a commit record explains; a report shows as many in all."""


@dataclass(frozen=True, kw_only=True)
class MaskStats:
    """Diagnostics of one mask shard, or the sum over several."""

    diagnostics: Diagnostics | None = None
    """Sum of the diagnostics over the images; None where no generator made the masks."""
    without_masks: Mapping[str, Diagnostics] = field(default_factory=dict)
    """Diagnostics of the first few images without masks, by image key."""
    others: Mapping[str, object] = field(default_factory=dict)
    """Statistics that this version does not know, kept unchanged."""

    @staticmethod
    def total(several: Iterable["MaskStats"]) -> "MaskStats":
        """Add up the statistics of several shards."""
        listed = list(several)
        made = [each.diagnostics for each in listed if each.diagnostics is not None]
        return MaskStats(
            diagnostics=sum(made, start=Diagnostics()) if made else None,
            without_masks={key: why for each in listed for key, why in each.without_masks.items()},
            others={name: value for each in listed for name, value in each.others.items()},
        )

    def to_json(self) -> dict[str, object]:
        """Return the statistics in the form that a commit record holds."""
        explained = islice(self.without_masks.items(), MAX_WITHOUT_MASKS)
        made = {} if self.diagnostics is None else {"diagnostics": self.diagnostics.to_json()}
        return {**self.others, **made, "without_masks": {key: each.to_json() for key, each in explained}}

    @staticmethod
    def from_json(content: Mapping[str, object]) -> "MaskStats":
        """Read the statistics from a commit record.

        Raises:
            ValueError: The record's statistics have another form than this stage writes.
        """
        others = dict(content)
        made, explained = others.pop("diagnostics", None), others.pop("without_masks", {})
        if not isinstance(explained, Mapping):
            raise ValueError(f"statistics of a mask shard: without_masks is {explained!r}, expected images by key")
        return MaskStats(
            diagnostics=None if made is None else _diagnostics(made),
            without_masks={str(key): _diagnostics(each) for key, each in explained.items()},
            others=others,
        )


def _diagnostics(content: object) -> Diagnostics:
    try:
        return Diagnostics.from_json(content)  # type: ignore[arg-type]
    except (AttributeError, TypeError) as error:
        raise ValueError(f"statistics of a mask shard: {error}; expected the counts of the generator") from error
