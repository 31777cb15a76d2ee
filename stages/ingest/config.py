"""Settings of ingest."""

from dataclasses import dataclass

from stages.ingest.normalise import MAX_DECODABLE_PIXELS
from storage.records import Stage


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How photos become images."""

    shortest_side_px: int | None = 1500
    """Length that the shortest side of a larger photo is scaled down to, as for SA-1B; None keeps the size."""
    min_side_px: int = 32
    """Shortest side below which a photo is rejected. Clean-up removes specks of 100 px, a tenth of a photo of 32 px."""
    max_pixels: int = MAX_DECODABLE_PIXELS
    """Most pixels of a photo, by its header, before decoding; at most 178,956,970, the limit of the decoder itself."""
    images_per_shard: int = 256
    """Most photos in one shard."""
    shard_bytes: int = 512 * 2**20
    """Most bytes of photo files in one shard; a larger file is rejected."""
    license: str = ""
    """Licence written to every image, e.g. CC-BY-4.0."""
    country: str = ""
    """Country written to every image, ISO 3166-1 alpha-2."""
    threads: int | None = None
    """Threads that read and decode. None: one per core, at most 8."""

    def __post_init__(self) -> None:
        for name in ("shortest_side_px", "min_side_px", "max_pixels", "images_per_shard", "shard_bytes", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if self.max_pixels > MAX_DECODABLE_PIXELS:
            raise ValueError(f"max_pixels is {self.max_pixels}, at most {MAX_DECODABLE_PIXELS} can be decoded")

    def settings(self) -> dict[str, object]:
        """Collect what decides an image's bytes and row, as a plan records it."""
        decisive = ("shortest_side_px", "min_side_px", "max_pixels", "license", "country")
        return {"stage": Stage.INGEST, **{name: getattr(self, name) for name in decisive}}
