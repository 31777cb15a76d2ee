"""The commit records, read several at a time and grouped to chunks, so that memory holds some of them only."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import groupby

from storage.objects.stores import ObjectStore
from storage.protocol.commits import Commit, read_commit
from storage.protocol.inputs import ShardAddress
from storage.verification.faults import Faults

_RECORDS_AT_ONCE = 256
"""Most records of a chunk, but for a shard of more generations."""
_ROWS_AT_ONCE = 200_000
"""Most rows of a chunk, but for a larger shard; a row takes about a kilobyte while it is compared."""

Lineage = list[Commit]
"""Records of one shard that can be read, the oldest generation first."""


def read_chunks(
    store: ObjectStore, faults: Faults, threads: Executor, named: Sequence[ShardAddress]
) -> Iterator[list[Lineage]]:
    """Read the records, and group them by shard, and shards to chunks of limited size."""
    chunk: list[Lineage] = []
    records = rows = 0
    for _, group in groupby(_read_records(store, faults, threads, named), key=lambda record: record.address.lineage):
        lineage = list(group)
        own_rows = sum(max(part.images, part.masks) for record in lineage for part in record.rows())
        if chunk and (records + len(lineage) > _RECORDS_AT_ONCE or rows + own_rows > _ROWS_AT_ONCE):
            yield chunk
            chunk, records, rows = [], 0, 0
        chunk.append(lineage)
        records, rows = records + len(lineage), rows + own_rows
    if chunk:
        yield chunk


def _read_records(
    store: ObjectStore, faults: Faults, threads: Executor, named: Sequence[ShardAddress]
) -> Iterator[Commit]:
    """Read the records, several at a time; those that cannot be read are left out."""

    def read(address: ShardAddress) -> tuple[Commit | None, Faults]:
        found, record = Faults(), None
        with found.guard(address.key, "restore the record from a copy"):
            record = read_commit(store, address)
        return record, found

    for start in range(0, len(named), _RECORDS_AT_ONCE):
        for record, found in threads.map(read, named[start : start + _RECORDS_AT_ONCE]):
            for fault in found.found:
                faults.add(fault)
            if record is not None:
                yield record
