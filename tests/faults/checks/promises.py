"""What a dataset has acknowledged, so that it must stay: plans, records, done folds, and all rows of its snapshots."""

import hashlib
from collections.abc import Iterable

from tests.faults.checks.checker import Checker
from tests.faults.checks.files import Files, own_keys
from tests.faults.checks.findings import LOST, TORN, Finding
from tests.faults.checks.table_rows import TABLES

KEPT = ("plans/", "commits/", "folds/", "snapshots/")
GONE = "gone"

Promises = dict[str, str]
"""By key, a digest of what is there; a snapshot's is that of the rows of its four tables, too."""


def acknowledged(files: Files, keys: Iterable[str] | None = None) -> Promises:
    """What these keys of a dataset hold now; None: all its plans, records, folds and snapshots."""
    checker = Checker(files)
    if keys is None:
        keys = [key for prefix in KEPT for key in own_keys(files, prefix)]
    return {key: said(checker, key) for key in keys}


def broken_promises(files: Files, before: Promises) -> list[Finding]:
    """What of that is gone (lost) or says something else by now (torn)."""
    now = acknowledged(files, before)
    return [
        Finding(
            kind=LOST if now[key] == GONE else TORN,
            thing=f"acknowledged {key.partition('/')[0]}",
            what=f"{key}: {now[key]}, was {was}",
        )
        for key, was in before.items()
        if now[key] != was
    ]


def said(checker: Checker, key: str) -> str:
    try:
        digest = hashlib.sha256(checker.object(key))
    except KeyError:
        return GONE
    if key.startswith("snapshots/"):
        try:
            state = checker.document(key)
            for name in TABLES:
                rows = checker.rows(state["folder"], name, state["versions"][name])
                digest.update("\n".join(sorted(map(repr, rows))).encode())
        except (KeyError, ValueError, OSError) as error:
            return f"unreadable: {error!r}"
    return digest.hexdigest()
