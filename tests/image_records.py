"""Records of images that tests make up."""

import hashlib

from storage.protocol.inputs import PhotoKey
from storage.records import ImageRecord, image_id_of, image_key


def photo_key(source: str) -> PhotoKey:
    """The key of a photo that tests make up."""
    return PhotoKey(source=source, place="0" * 12, nbytes=1, mtime_ns=0)


def image_record(
    data: bytes, image_hw: tuple[int, int], source: str, form: str, *, licence: str = "", country: str = ""
) -> ImageRecord:
    """Make the record of an image that is stored unchanged."""
    sha256 = hashlib.sha256(data).hexdigest()
    image_id = image_id_of(sha256)
    return ImageRecord(
        image_id=image_id,
        key=image_key(image_id),
        height=image_hw[0],
        width=image_hw[1],
        format=form,
        nbytes=len(data),
        source=source,
        source_sha256=sha256,
        stored_sha256=sha256,
        license=licence,
        country=country,
    )
