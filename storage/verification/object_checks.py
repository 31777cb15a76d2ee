"""The objects of commit records, each read once: its size, SHA-256 and counts."""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor

import pyarrow as pa

from storage.errors import Corrupt, NotFound
from storage.formats.tar_shards import Member
from storage.objects.stores import ObjectStore, sha256_of
from storage.protocol.commits import Part, PartRole
from storage.protocol.erasures import Erasures, is_whole
from storage.tables import contents
from storage.verification.faults import Faults

RESTORE = "restore the object from a copy, or redo the shard"


def check_parts(
    store: ObjectStore, threads: Executor, parts: Iterable[Part], erasures: Erasures, *, fast: bool
) -> Iterator[tuple[Part, Faults, pa.Table | None]]:
    """Compare objects with their records, several at a time, and yield each with its faults and its table rows.

    Args:
        store: The store of the dataset.
        threads: Threads that read.
        parts: The objects.
        erasures: The dataset's erasures.
        fast: Whether to compare only sizes; otherwise every byte is read.
    """
    listed = list(parts)
    answers = threads.map(lambda part: check_part(store, part, erasures, fast=fast), listed)
    for part, (faults, rows) in zip(listed, answers, strict=True):
        yield part, faults, rows


def check_part(store: ObjectStore, part: Part, erasures: Erasures, *, fast: bool) -> tuple[Faults, pa.Table | None]:
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
            left: list[str] = []
            images, masks, rows = _read(store, part, erasures, left)
            if (images, masks) != (part.images, part.masks):
                what = f"{images} images and {masks} masks, the record says {part.images} and {part.masks}"
                faults.note(part.key, what, RESTORE)
            note_unerased(faults, part.key, left)
    return faults, rows


def note_unerased(faults: Faults, key: str, left: Sequence[str]) -> None:
    """Note which erased images are still in an object."""
    if left:
        what = f"holds {len(left)} erased images that are not overwritten, the first is {left[0]}"
        faults.note(key, what, "run `gigamask erase --finish`")


def is_zeros(member: Member) -> bool:
    """Tell whether the files of a sample are overwritten with zeros."""
    return all(data.count(0) == len(data) for data in member.parts.values())


def _read(store: ObjectStore, part: Part, erasures: Erasures, left: list[str]) -> tuple[int, int, pa.Table | None]:
    """Count images and masks in the bytes of an object; a table of rows has one row an image, or one a mask.

    The masks of erased images count as there. Keys of erased images that are not overwritten are added to `left`.

    Raises:
        Exception: Anything that damaged bytes lead to; a wrong SHA-256, where there is one, explains the rest.
    """
    try:
        if part.role is not PartRole.TAR:
            rows = contents.read_rows(store, part)
            of_masks = "mask_id" in rows.column_names
            return (part.images, rows.num_rows, rows) if of_masks else (rows.num_rows, part.masks, rows)
        images = masks = 0
        erased: list[Member] = []
        for member in contents.read_part(store, part, erasures, on_erased=erased.append):
            images += 1
            masks += len(json.loads(member.parts["json"]).get("annotations", ()))
        left += [member.key for member in erased if not is_zeros(member)]
        return images + len(erased), max(masks, part.masks) if erased else masks, None
    except NotFound:
        raise
    except Exception as error:
        sha256 = sha256_of(store, part.key)
        if sha256 != part.sha256 and not is_whole(store, part, erasures):
            raise Corrupt(f"SHA-256 {sha256}, the record says {part.sha256}") from error
        raise
