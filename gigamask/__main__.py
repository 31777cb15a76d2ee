"""The start of the `gigamask` command, and of `python -m gigamask`: whose code runs, and in which encoding.

Two things have to be settled before the command is imported. Vision repositories have an `engine.py` or a `storage/` of
their own, and PYTHONPATH puts them before ours. And where the locale is not UTF-8, names of files cannot be passed on.
"""

import os
import sys
from pathlib import Path

PACKAGES = ("engine", "flows", "stages", "storage")
"""Packages of this distribution whose names others have, too."""


def main() -> None:
    """Run the command with this distribution's packages, in UTF-8."""
    speak_utf_8()
    leave_out_namesakes(Path(__file__).parent.parent)
    from flows.cli.main import main as run_command

    run_command()


def speak_utf_8() -> None:
    """Start this process again in Python's UTF-8 mode if the locale has another encoding for the names of files."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":  # once
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def leave_out_namesakes(own: Path) -> None:
    """Take folders out of the import path that come before our own and hold a package of the same name as one of ours.

    PYTHONPATH loses them as well, so that every process that this one starts imports what this one does.
    """
    for entry in list(sys.path):
        folder = Path(entry)
        if folder.resolve() == own.resolve():
            break
        strangers = [name for name in PACKAGES if (folder / name).is_dir() or (folder / f"{name}.py").is_file()]
        if strangers:
            sys.path.remove(entry)
            shown = f"gigamask: {folder.absolute()} is left out of the import path: its {', '.join(strangers)}"
            print(f"{shown} would come before gigamask's own", file=sys.stderr)
    if "PYTHONPATH" in os.environ:
        path = {Path(each).resolve() for each in sys.path}
        kept = [each for each in os.environ["PYTHONPATH"].split(os.pathsep) if each and Path(each).resolve() in path]
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)


if __name__ == "__main__":
    main()
