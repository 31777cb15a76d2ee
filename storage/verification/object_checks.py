"""The objects of commit records, each read once: its size, SHA-256 and counts."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor

import pyarrow as pa

from storage.errors import Corrupt, NotFound
from storage.objects.stores import ObjectStore, sha256_of
from storage.protocol.commits import Part, PartRole
from storage.tables import contents
from storage.verification.faults import Faults

RESTORE = "restore the object from a copy, or redo the shard"


def check_parts(
    store: ObjectStore, threads: Executor, parts: Iterable[Part], *, fast: bool
) -> Iterator[tuple[Part, Faults, pa.Table | None]]:
    """Compare objects with their records, several at a time, and yield each with its faults and its table rows.

    Args:
        store: The store of the dataset.
        threads: Threads that read.
        parts: The objects.
        fast: Whether to compare only sizes; otherwise every byte is read.
    """
    listed = list(parts)
    answers = threads.map(lambda part: check_part(store, part, fast=fast), listed)
    for part, (faults, rows) in zip(listed, answers, strict=True):
        yield part, faults, rows


def check_part(store: ObjectStore, part: Part, *, fast: bool) -> tuple[Faults, pa.Table | None]:
    """Compare size, SHA-256 and counts of an object with its record; only the size if `fast`.

    Returns:
        The faults, and the table rows in the object; None where it has none, or they cannot be read.
    """
    faults, rows = Faults(), None
    with faults.guard(part.key, RESTORE):
        nbytes = store.head(part.key).nbytes
        if nbytes != part.nbytes:
            faults.note(part.key, f"{nbytes} bytes, the record says {part.nbytes}", RESTORE)
        elif not fast:
            images, masks, rows = _read(store, part)
            if (images, masks) != (part.images, part.masks):
                what = f"{images} images and {masks} masks, the record says {part.images} and {part.masks}"
                faults.note(part.key, what, RESTORE)
    return faults, rows


def _read(store: ObjectStore, part: Part) -> tuple[int, int, pa.Table | None]:
    """Count images and masks in the bytes of an object; a table of rows has one row an image, or one a mask.

    Raises:
        Exception: Anything that damaged bytes lead to; a wrong SHA-256, where there is one, explains the rest.
    """
    try:
        if part.role is not PartRole.TAR:
            rows = contents.read_rows(store, part)
            of_masks = "mask_id" in rows.column_names
            return (part.images, rows.num_rows, rows) if of_masks else (rows.num_rows, part.masks, rows)
        images = masks = 0
        for member in contents.read_part(store, part):
            images += 1
            masks += len(json.loads(member.parts["json"]).get("annotations", ()))
        return images, masks, None
    except NotFound:
        raise
    except Exception as error:
        sha256 = sha256_of(store, part.key)
        if sha256 != part.sha256:
            raise Corrupt(f"SHA-256 {sha256}, the record says {part.sha256}") from error
        raise
