"""Files of ids as spreadsheets and other programs write them."""

from pathlib import Path

import pytest

from flows.cli.maintenance import _pairs_in


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
@pytest.mark.parametrize("between", [b",", b";"], ids=["commas", "semicolons"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_ids_are_read_whatever_program_wrote_the_file(tmp_path: Path, mark: bytes, between: bytes, end: bytes) -> None:
    lines = [(b"image_id", b"mask_id"), (b"5", b"9007199254740993"), (b"4", b"7")]
    (tmp_path / "ids.csv").write_bytes(mark + end.join(between.join(line) for line in lines))
    assert _pairs_in(tmp_path / "ids.csv") == [(4, 7), (5, 9007199254740993)]
