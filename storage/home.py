"""This user: the account's name, and the folder in which everything is kept that can be made again."""

import getpass
import os
from pathlib import Path


def cache_folder(name: str = "") -> Path:
    """Return ~/.cache/gigamask/<name>; it need not exist.

    Raises:
        ValueError: This user has no home, as in a container that runs with a user id of its own.
    """
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ValueError(
            f"HOME is not set, and user {os.getuid()} has no home; set HOME to a folder that can be written"
        ) from error
    return home / ".cache" / "gigamask" / name


def account_name() -> str:
    """Return the name of this user's account, or its number if it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id that no passwd file has
        return f"user {os.getuid()}"
