import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import webdataset

from storage.errors import Corrupt
from storage.formats.tar_shards import Member, MemberSpan, read_shard, write_shard

MEMBERS = [
    Member(key="0000000000000001", parts={"jpg": b"j" * 700, "json": b'{"a":1}'}),
    Member(key="0000000000000002", parts={"json": b"{}", "jpg": b""}),
    Member(key="0000000000000003", parts={"png": b"p" * 512, "json": b"[]"}),
]


def written(members: Sequence[Member] = MEMBERS) -> tuple[bytes, list[MemberSpan]]:
    file = io.BytesIO()
    spans = write_shard(file, members)
    return file.getvalue(), spans


def test_what_is_written_is_read_back_and_lies_where_the_spans_say() -> None:
    data, spans = written()
    assert list(read_shard(io.BytesIO(data))) == MEMBERS
    parts = {(member.key, ext): part for member in MEMBERS for ext, part in member.parts.items()}
    assert {(span.key, span.ext): data[span.offset : span.offset + span.nbytes] for span in spans} == parts


def test_the_same_input_gives_the_same_bytes_whatever_the_order_of_the_parts() -> None:
    turned = [Member(key=each.key, parts=dict(reversed(each.parts.items()))) for each in MEMBERS]
    assert written()[0] == written(turned)[0]


def test_tarfile_reads_it_and_sees_no_time_or_owner() -> None:
    with tarfile.open(fileobj=io.BytesIO(written()[0])) as tar:
        infos = tar.getmembers()
        assert [info.name for info in infos][:2] == ["0000000000000001.jpg", "0000000000000001.json"]
        assert {(info.mtime, info.uid, info.uname, info.mode) for info in infos} == {(0, 0, "", 0o644)}
        assert tar.extractfile(infos[0]).read() == MEMBERS[0].parts["jpg"]


def test_the_webdataset_library_reads_it(tmp_path: Path) -> None:
    (tmp_path / "shard.tar").write_bytes(written()[0])
    stream = webdataset.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False)
    read = [{name: value for name, value in sample.items() if name in ("jpg", "png", "json")} for sample in stream]
    assert read == [member.parts for member in MEMBERS]


@pytest.mark.parametrize("keep", [511, 600, 1300, 2600])
def test_a_torn_shard_is_never_read_as_a_short_one(keep: int) -> None:
    data = written()[0][:keep]
    with pytest.raises(Corrupt, match="middle of a member"):
        list(read_shard(io.BytesIO(data)))


def test_a_damaged_header_and_a_foreign_file_are_corrupt() -> None:
    data = bytearray(written()[0])
    data[3] ^= 1
    for bad in (bytes(data), b"not a tar at all" * 64):
        with pytest.raises(Corrupt, match="not a shard"):
            list(read_shard(io.BytesIO(bad)))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([MEMBERS[0], MEMBERS[0]], "twice"),
        ([Member(key="a.b", parts={"jpg": b""})], "without '.'"),
        ([Member(key="../a", parts={"jpg": b""})], "plain characters"),
        ([Member(key="a", parts={})], "endings"),
        ([Member(key="a", parts={"JPG": b""})], "lower-case"),
    ],
)
def test_names_that_no_reader_would_group_rightly_are_refused(members: Sequence[Member], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        written(members)
