"""Tar shards in the webdataset convention: files that share a key are one sample; the same input gives the same bytes.

A file is named `<key>.<ext>`; a sample's files follow one another, sorted by ending. Time, owner and mode are fixed.
"""

import tarfile
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(_BLOCK)
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Member:
    """One sample of a shard: files that share a key."""

    key: str
    """Name of the sample's files, without the ending."""
    parts: dict[str, bytes]
    """Bytes of the sample's files by file ending, such as jpg or json."""


@dataclass(frozen=True, kw_only=True)
class MemberSpan:
    """Place of one file's bytes in the shard's tar."""

    key: str
    """Key of the sample."""
    ext: str
    """Ending of the file."""
    offset: int
    """Position of the file's first byte in the tar."""
    nbytes: int
    """Size of the file in bytes."""


def write_shard(file: BinaryIO, members: Iterable[Member]) -> list[MemberSpan]:
    """Write members in the given order, and return the place of each of their files.

    Raises:
        ValueError: A key is malformed or comes twice, or an ending is malformed.
    """
    spans: list[MemberSpan] = []
    seen: set[str] = set()
    offset = 0
    for member in members:
        _check_names(member, seen)
        for ext, data in sorted(member.parts.items()):
            file.write(_header(f"{member.key}.{ext}", len(data)))
            file.write(data)
            file.write(bytes(-len(data) % _BLOCK))
            spans.append(MemberSpan(key=member.key, ext=ext, offset=offset + _BLOCK, nbytes=len(data)))
            offset += _BLOCK + len(data) + -len(data) % _BLOCK
    file.write(bytes(2 * _BLOCK + -(offset + 2 * _BLOCK) % tarfile.RECORDSIZE))
    return spans


def read_shard(file: BinaryIO) -> Iterator[Member]:
    """Stream members in the order in which they were written; only one member at a time is in memory.

    Raises:
        Corrupt: The file is torn or is no shard. Python's tarfile alone would ignore a torn header in the middle.
    """
    key = ""
    parts: dict[str, bytes] = {}
    while header := _next_header(file):
        name = header.name
        member_key, dot, ext = name.partition(".")
        if not header.isreg() or not dot:
            raise Corrupt(f"{_name_of(file)}: member {name!r}, expected files named <key>.<ext>")
        if parts and member_key != key:
            yield Member(key=key, parts=parts)
            parts = {}
        key = member_key
        parts[ext] = _exactly(file, header.size)
        _exactly(file, -header.size % _BLOCK)
    if parts:
        yield Member(key=key, parts=parts)


def find_files(file: BinaryIO, keys: Container[str]) -> Iterator[MemberSpan]:
    """Find the files of the samples with the given keys; the shard is read once, piece by piece.

    Raises:
        Corrupt: The file is torn or is no shard, from some place on.
    """
    offset = 0
    while header := _next_header(file):
        offset += _BLOCK
        key, _, ext = header.name.partition(".")
        if key in keys:
            yield MemberSpan(key=key, ext=ext, offset=offset, nbytes=header.size)
        padded = header.size + -header.size % _BLOCK
        for done in range(0, padded, _PIECE_BYTES):
            _exactly(file, min(_PIECE_BYTES, padded - done))
        offset += padded


def _check_names(member: Member, seen: set[str]) -> None:
    if not member.key or "." in member.key or "/" in member.key or not member.key.isascii():
        raise ValueError(f"sample key {member.key!r}: expected plain characters without '.' or '/'")
    if member.key in seen:
        raise ValueError(f"sample key {member.key!r} comes twice in one shard")
    if not member.parts or any(not ext or "/" in ext or ext != ext.lower() for ext in member.parts):
        raise ValueError(f"sample {member.key!r}: endings {sorted(member.parts)}, expected lower-case names like 'jpg'")
    seen.add(member.key)


def _header(name: str, nbytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = nbytes
    info.mode = 0o644
    return info.tobuf(format=tarfile.USTAR_FORMAT, encoding="ascii", errors="strict")


def _next_header(file: BinaryIO) -> tarfile.TarInfo | None:
    block = _exactly(file, _BLOCK)
    if block == _END:
        return None
    try:
        return tarfile.TarInfo.frombuf(block, encoding="utf-8", errors="strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise Corrupt(f"{_name_of(file)}: not a shard, or a damaged one ({error}); run `gigamask verify`") from error


def _exactly(file: BinaryIO, nbytes: int) -> bytes:
    data = file.read(nbytes)
    if len(data) != nbytes:
        raise Corrupt(f"{_name_of(file)}: the shard ends in the middle of a member; run `gigamask verify`")
    return data


def _name_of(file: BinaryIO) -> str:
    return str(getattr(file, "name", "shard"))
