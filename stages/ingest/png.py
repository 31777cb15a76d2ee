"""PNG files whose pixels are whole but whose notes are not: too large a text, a wrong checksum beside the image."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NOTES = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
"""Types of chunks on which no pixel depends."""
_TURNS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
"""Beginnings of texts that may say which side of a photo is up: such a photo is not read without them."""


def without_notes(data: bytes) -> bytes:
    """Leave the chunks with notes out of a PNG; what is no PNG, or may be turned by a note, is returned as it is."""
    if not data.startswith(SIGNATURE):
        return data
    kept, position = [SIGNATURE], len(SIGNATURE)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        chunk = data[position:end]
        if chunk[4:8] not in _NOTES:
            kept.append(chunk)
        elif chunk[8:].startswith(_TURNS):
            return data
        position = end
    return b"".join([*kept, data[position:]])
