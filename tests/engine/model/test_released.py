import contextlib
import dataclasses
import fcntl
import hashlib
import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.model.released import RELEASED, PullFailed, models_folder, pull
from storage.errors import Corrupt
from tests.paths import ROOT

CONTENT = bytes(range(256)) * 1024 + b"weights!"
"""Content of the local server's file for vit_b."""
FILE_NAME = "sam_vit_b_01ec64.pth"


@dataclass
class Site:
    """Behaviour of the local server, and the requests it received."""

    content: bytes = CONTENT
    honours_ranges: bool = True
    breaks_off_after: int | None = None
    says_length: bool = True
    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.paths.append(self.path)
            site.ranges.append(self.headers.get("Range"))
            if not self.path.endswith(FILE_NAME):
                self.send_error(404)
                return
            start = self.range_start()
            if start >= len(site.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(site.content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
            if site.says_length:
                self.send_header("Content-Length", str(len(site.content) - start))
            self.end_headers()
            self.wfile.write(site.content[start : site.breaks_off_after])

        def range_start(self) -> int:
            asked = self.headers.get("Range")
            return int(asked.removeprefix("bytes=").removesuffix("-")) if asked and site.honours_ranges else 0

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_address[1]}/segment_anything/"
        yield site
        server.shutdown()


@pytest.fixture(autouse=True)
def content_is_the_released_one(monkeypatch: pytest.MonkeyPatch) -> None:
    released = dataclasses.replace(RELEASED["vit_b"], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(RELEASED, "vit_b", released)


def leave_part(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    part = folder / (FILE_NAME + ".part")
    part.write_bytes(content)
    return part


def test_released_weights_are_asked_of_their_public_addresses() -> None:
    assert {name: model.url for name, model in RELEASED.items()} == {
        "mobile": "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2"
        "/weights/mobile_sam.pt",
        "vit_b": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
        "vit_l": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
        "vit_h": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
    }
    assert all(len(bytes.fromhex(model.sha256)) == 32 for model in RELEASED.values())


def test_without_another_address_the_public_one_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    monkeypatch.setitem(RELEASED, "vit_b", dataclasses.replace(RELEASED["vit_b"], url=f"{site.url}{FILE_NAME}"))
    assert pull("vit_b", tmp_path).path.read_bytes() == CONTENT


def test_pulling_brings_the_whole_file_and_calls_it_verified(site: Site, tmp_path: Path) -> None:
    seen = []
    pulled = pull("vit_b", tmp_path, base_url=site.url, progress=lambda done, total: seen.append((done, total)))
    assert pulled.path == tmp_path / FILE_NAME
    assert pulled.path.read_bytes() == CONTENT
    assert pulled.nbytes == len(CONTENT)
    assert pulled.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert pulled.verification.startswith(f"verified: SHA-256 {pulled.sha256}, as others recorded it")
    assert (pulled.already_there, pulled.kept_bytes, pulled.refetched_bytes) == (False, 0, 0)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert site.paths == [f"/segment_anything/{FILE_NAME}"]
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_an_interrupted_pull_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.breaks_off_after = 100_000
    with pytest.raises(PullFailed, match=r"ended after 100000 of 262152 bytes; .* pull again to go on"):
        pull("vit_b", tmp_path, base_url=site.url)
    assert not (tmp_path / FILE_NAME).exists()
    assert (tmp_path / (FILE_NAME + ".part")).read_bytes() == CONTENT[:100_000]

    site.breaks_off_after = None
    pulled = pull("vit_b", tmp_path, base_url=site.url)
    assert site.ranges == [None, "bytes=100000-"]
    assert (pulled.kept_bytes, pulled.refetched_bytes) == (100_000, 0)
    assert pulled.path.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_part_that_was_already_whole_is_only_checked(site: Site, tmp_path: Path) -> None:
    leave_part(tmp_path, CONTENT)
    pulled = pull("vit_b", tmp_path, base_url=site.url)
    assert (pulled.kept_bytes, pulled.path.read_bytes()) == (len(CONTENT), CONTENT)


@pytest.mark.parametrize("part", [CONTENT[:70_000], CONTENT + b"too long"], ids=["shorter", "longer"])
def test_a_server_without_ranges_sends_the_whole_file_and_the_result_says_so(
    site: Site, tmp_path: Path, part: bytes
) -> None:
    leave_part(tmp_path, part)
    site.honours_ranges = False
    pulled = pull("vit_b", tmp_path, base_url=site.url)
    assert (pulled.kept_bytes, pulled.refetched_bytes) == (0, len(part))
    assert pulled.path.read_bytes() == CONTENT


def test_a_server_that_does_not_say_the_length_is_believed_when_the_checksum_agrees(site: Site, tmp_path: Path) -> None:
    site.says_length = False
    seen = []
    pull("vit_b", tmp_path, base_url=site.url, progress=lambda done, total: seen.append(total))
    assert set(seen) == {None}
    assert (tmp_path / FILE_NAME).read_bytes() == CONTENT


def test_wrong_content_is_kept_aside_named_and_never_used(site: Site, tmp_path: Path) -> None:
    site.content = b"<html>captive portal</html>"
    with pytest.raises(Corrupt, match=r"\.part: its SHA-256 is .*, that of vit_b is .* remove this file"):
        pull("vit_b", tmp_path, base_url=site.url)
    assert not (tmp_path / FILE_NAME).exists()
    assert (tmp_path / (FILE_NAME + ".part")).read_bytes() == site.content


def test_a_resumed_part_of_something_else_is_noticed(site: Site, tmp_path: Path) -> None:
    part = leave_part(tmp_path, b"x" * 5000)
    with pytest.raises(Corrupt, match="remove this file and pull again"):
        pull("vit_b", tmp_path, base_url=site.url)
    part.unlink()
    assert pull("vit_b", tmp_path, base_url=site.url).path.read_bytes() == CONTENT


def test_a_file_that_is_there_is_checked_and_not_fetched_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(CONTENT)
    assert pull("vit_b", tmp_path, base_url=site.url).already_there
    (tmp_path / FILE_NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(Corrupt, match=f"{FILE_NAME}: its SHA-256"):
        pull("vit_b", tmp_path, base_url=site.url)
    assert site.paths == []
    assert (tmp_path / FILE_NAME).read_bytes() == CONTENT[:-1]


def test_a_missing_page_is_reported_with_its_address_and_status(site: Site, tmp_path: Path) -> None:
    with pytest.raises(PullFailed, match=r"http://127.0.0.1:\d+/segment_anything/sam_vit_l_0b3195.pth: .* 404 "):
        pull("vit_l", tmp_path, base_url=site.url)


def test_a_refused_connection_is_reported_and_leaves_the_part_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    part = leave_part(tmp_path, CONTENT[:1000])
    with pytest.raises(PullFailed, match=r"no connection \(.*refused.*\); check the network"):
        pull("vit_b", tmp_path, base_url=f"http://127.0.0.1:{port}")
    assert part.read_bytes() == CONTENT[:1000]


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("engine.model.released.TIMEOUT_S", 0.2)
    with (
        contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server,
        pytest.raises(PullFailed, match="timed out"),
    ):
        pull("vit_b", tmp_path, base_url=f"http://127.0.0.1:{server.getsockname()[1]}")


def test_two_pulls_of_one_file_do_not_mix(site: Site, tmp_path: Path) -> None:
    part = leave_part(tmp_path, b"")
    with part.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(PullFailed, match="another pull is writing this file"):
            pull("vit_b", tmp_path, base_url=site.url)
    assert site.paths == []


def test_a_models_folder_that_cannot_be_made_is_reported(site: Site, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(PullFailed, match="choose another models folder"):
        pull("vit_b", tmp_path / "taken", base_url=site.url)


def test_an_unknown_name_lists_the_released_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got model 'vit_x', expected one of mobile, vit_b, vit_l, vit_h"):
        pull("vit_x", tmp_path)


def test_the_models_folder_is_in_the_users_cache_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models_folder() == tmp_path / ".cache" / "gigamask" / "models"
    assert models_folder("elsewhere").name == "elsewhere"


def test_released_models_are_listed_and_pulled_without_torch() -> None:
    program = "import sys, flows.cli.models, engine.model.released; print({'torch', 'numpy', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
