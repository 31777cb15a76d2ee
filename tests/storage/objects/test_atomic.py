from pathlib import Path
from typing import BinaryIO

import pytest

from storage.objects.atomic import replace_file


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"old")

    def fill(file: BinaryIO) -> None:
        file.write(b"new")
        assert path.read_bytes() == b"old"

    replace_file(path, fill)
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_a_writer_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")

    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        replace_file(path, fill)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["weights.safetensors"]
