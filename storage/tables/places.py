"""Folders that the Delta library cannot hold tables in: it takes a path for a part of an address."""

import re

from storage.errors import StoreError

_UNFIT = re.compile(r"[\[\]^|\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


def check_place(uri: str) -> None:
    """Check that tables can be made below a place, before anything is written there.

    Raises:
        StoreError: The path of the folder holds what the library cannot write.
    """
    found = _UNFIT.search(uri) if "://" not in uri else None
    if found:
        raise StoreError(
            f"{uri}: got a path with {found[0]!r}, which the library of the tables cannot hold; expected one without "
            "[ ] ^ | \\, control characters and % before two hex digits; rename the folder, or choose another"
        )
