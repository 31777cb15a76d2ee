"""One photo of a shard: read, normalised, judged, and turned into an image or a reject."""

import hashlib
from dataclasses import dataclass

from stages.ingest.config import IngestConfig
from stages.ingest.decoders import Decoders
from stages.ingest.files import PhotosAtHand
from stages.ingest.known import KnownPhotos, Verdict
from stages.ingest.normalise import Photo, Unusable
from stages.ingest.privacy import Region
from storage.protocol.inputs import PhotoKey
from storage.records import ImageRecord, Reject, Stage, image_id_of, image_key


@dataclass(frozen=True, kw_only=True)
class ReadPhoto:
    """Result of a thread for one photo."""

    source: str
    sha256: str
    """SHA-256 of the file; "" for a file that could not be read."""
    outcome: Photo | Unusable | None
    """Normalised photo, or the reason why there is none; None where the dataset holds these bytes already."""


def read_planned(at_hand: PhotosAtHand, known: KnownPhotos, decoders: Decoders, key: PhotoKey) -> ReadPhoto:
    """Read a file, normalise the photo and conceal faces and plates, unless the dataset holds its bytes."""
    path = at_hand.path(key)
    if path is None:
        gone = Unusable("unreadable", "it was there when the plan was made and is no longer")
        return ReadPhoto(source=key.source, sha256="", outcome=gone)
    decoded = decoders.decode(path, lambda sha256: not known.holds(sha256))
    return ReadPhoto(source=key.source, sha256=decoded.sha256, outcome=decoded.outcome)


def judge(known: KnownPhotos, key: PhotoKey, read: ReadPhoto) -> Verdict:
    """Tell a new photo from an unchanged one.

    Raises:
        Unusable: The file is no usable photo or is a duplicate; the photo becomes a reject.
    """
    if isinstance(read.outcome, Unusable):
        raise read.outcome
    return known.take(key, read.sha256)


def image_of(read: ReadPhoto, config: IngestConfig) -> tuple[ImageRecord, bytes]:
    """Make the record and the stored bytes of the image that a new photo becomes."""
    photo = read.outcome
    assert isinstance(photo, Photo), "a photo that the dataset does not hold was normalised"
    image_id = image_id_of(read.sha256)
    record = ImageRecord(
        image_id=image_id,
        key=image_key(image_id),
        height=photo.height,
        width=photo.width,
        format=photo.format,
        nbytes=len(photo.data),
        source=read.source,
        source_sha256=read.sha256,
        stored_sha256=hashlib.sha256(photo.data).hexdigest(),
        license=config.license,
        country=config.country,
    )
    return record, photo.data


def regions_of(read: ReadPhoto) -> tuple[Region, ...]:
    """Return the concealed regions of the image that a new photo becomes."""
    return read.outcome.regions if isinstance(read.outcome, Photo) else ()


def reject_of(read: ReadPhoto, why: Unusable) -> Reject:
    """Make the reject of a photo that cannot be used."""
    return Reject(
        source=read.source, source_sha256=read.sha256, reason=why.reason, detail=why.detail, stage=Stage.INGEST
    )
