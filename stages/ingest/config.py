"""Settings of ingest."""

from dataclasses import dataclass

from stages.ingest.normalise import MAX_DECODABLE_PIXELS

STAGE = "ingest"


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How photographs are taken in."""

    shortest_side_px: int | None = 1500
    """Larger photographs are scaled down to this, as SA-1B's were; None keeps their size."""
    min_side_px: int = 32
    """Smaller ones are rejected: a tenth of such a picture is the 100 px that clean-up takes for a speck."""
    max_pixels: int = MAX_DECODABLE_PIXELS
    """Judged from the header, before decoding; at most 178,956,970, the decoder's own guard."""
    images_per_shard: int = 256
    shard_bytes: int = 512 * 2**20
    """Of source files in a shard; no larger file is read."""
    license: str = ""
    """Written to every image, e.g. CC-BY-4.0."""
    country: str = ""
    """ISO 3166-1 alpha-2, written to every image."""
    threads: int | None = None
    """That read and decode; None: one per core, at most 8."""

    def __post_init__(self) -> None:
        for name in ("shortest_side_px", "min_side_px", "max_pixels", "images_per_shard", "shard_bytes", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if self.max_pixels > MAX_DECODABLE_PIXELS:
            raise ValueError(f"max_pixels is {self.max_pixels}, at most {MAX_DECODABLE_PIXELS} can be decoded")

    def settings(self) -> dict[str, object]:
        """What decides over a photograph's bytes and row, as a plan records it."""
        decisive = ("shortest_side_px", "min_side_px", "max_pixels", "license", "country")
        return {"stage": STAGE, **{name: getattr(self, name) for name in decisive}}
