"""What the commit record of a mask shard says about how its masks were made."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from engine.automatic.diagnostics import Diagnostics

MAX_WITHOUT_MASKS = 12
"""Images without masks that a record explains: as many as a report shows in all."""


@dataclass(frozen=True, kw_only=True)
class MaskStats:
    """Diagnostics of one mask shard, or of several."""

    diagnostics: Diagnostics | None = None
    """Sum over the images; None where no generator made the masks."""
    without_masks: Mapping[str, Diagnostics] = field(default_factory=dict)
    """By image key, for the first few images that have no masks."""
    others: Mapping[str, object] = field(default_factory=dict)
    """Statistics that this version does not know, kept as they are."""

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
        """Return the form that a commit record holds."""
        explained = islice(self.without_masks.items(), MAX_WITHOUT_MASKS)
        made = {} if self.diagnostics is None else {"diagnostics": self.diagnostics.to_json()}
        return {**self.others, **made, "without_masks": {key: each.to_json() for key, each in explained}}

    @staticmethod
    def from_json(content: Mapping[str, object]) -> "MaskStats":
        """Read what a commit record holds.

        Raises:
            ValueError: The statistics of this stage have another form.
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
