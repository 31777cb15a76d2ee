"""Download of the released SAM weights into the models folder; needs no torch.

The releases publish no SHA-256. Other projects recorded the checksums used here from the same files, so a file
that passes is the one in common use. The digits in the file names of `vit_b`, `vit_l` and `vit_h` are the first digits
of the files' MD5.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from storage.errors import Corrupt, StoreError
from storage.home import cache_folder

TIMEOUT_S = 30.0
"""Longest silence of a server before a download fails, in seconds."""
BLOCK_BYTES = 1 << 20
"""Number of bytes read from the server at a time."""

Progress = Callable[[int, int | None], None]
"""Callback with the number of bytes downloaded so far and the file's size in bytes (None if it is unknown)."""


class PullFailed(StoreError):
    """Failure to start or finish a download; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """Model whose weights were published by its authors."""

    name: str
    """Name of the model, such as "vit_b"."""
    url: str
    """Address of the weights file."""
    sha256: str
    """Expected checksum of the file, as 64 hex digits."""

    @property
    def file_name(self) -> str:
        """Name of the weights file, both in the download address and in the models folder."""
        return self.url.rpartition("/")[2]


_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"
_MOBILE_URL = "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights"

RELEASED: dict[str, ReleasedModel] = {
    name: ReleasedModel(name=name, url=url, sha256=sha256)
    for name, url, sha256 in [
        (
            "mobile",
            f"{_MOBILE_URL}/mobile_sam.pt",
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        ),
        (
            "vit_b",
            f"{_SAM_URL}/sam_vit_b_01ec64.pth",
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        (
            "vit_l",
            f"{_SAM_URL}/sam_vit_l_0b3195.pth",
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        (
            "vit_h",
            f"{_SAM_URL}/sam_vit_h_4b8939.pth",
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
    ]
}
"""Released models by name, smallest first: MobileSAM and the three networks of "Segment Anything"."""


@dataclass(frozen=True, kw_only=True)
class PulledModel:
    """Checked weights file in the models folder, with the numbers of bytes that `pull` kept and downloaded again."""

    name: str
    """Name of the model."""
    path: Path
    """Path of the file."""
    nbytes: int
    """Size of the file, in bytes."""
    sha256: str
    """Checksum of the file, as 64 hex digits."""
    already_there: bool
    """True if the file was in the folder before; it was then checked again, and nothing was downloaded."""
    kept_bytes: int
    """Number of bytes of an earlier, interrupted download that this download kept."""
    refetched_bytes: int
    """Number of bytes of an interrupted download that came again, because the server only sends whole files."""

    @property
    def verification(self) -> str:
        """Sentence for users on how the file's content was verified."""
        return f"verified: SHA-256 {self.sha256}, as others recorded it (the release publishes none)"


@dataclass(frozen=True, kw_only=True)
class _Transfer:
    """Numbers of bytes of an interrupted download: those kept, and those downloaded again."""

    kept_bytes: int = 0
    refetched_bytes: int = 0


def models_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of downloaded models: `folder` itself, or ~/.cache/gigamask/models if `folder` is None."""
    return Path(folder) if folder is not None else cache_folder("models")


def pull(
    name: str,
    folder: str | Path | None = None,
    *,
    base_url: str | None = None,
    progress: Progress | None = None,
) -> PulledModel:
    """Download released weights into the models folder, or continue an interrupted download.

    The data is collected in `<file>.part`. The part file is never deleted; `pull` renames it to `<file>` once its
    checksum is right.

    Args:
        base_url: address of a folder that mirrors the files; None: the authors' addresses.

    Raises:
        ValueError: No released model has this name.
        PullFailed: There is no network, the server refused or disconnected, the folder cannot be written, or another
            download of this file is running.
        Corrupt: The file is complete, and its checksum is wrong.
    """
    if name not in RELEASED:
        raise ValueError(f"got model {name!r}, expected one of {', '.join(RELEASED)}: those are released for download")
    released = RELEASED[name]
    url = released.url if base_url is None else f"{base_url.rstrip('/')}/{released.file_name}"
    target = models_folder(folder) / released.file_name
    transfer = _Transfer()

    # Check the file, or download it first
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        already_there = target.exists()
        if already_there:
            _check(released, target)
        else:
            transfer = _fetch(released, url, target, progress)
    except OSError as error:
        raise PullFailed(f"{target}: {error.strerror or error}; make room or choose another models folder") from error

    # Report
    return PulledModel(
        name=name,
        path=target,
        nbytes=target.stat().st_size,
        sha256=released.sha256,
        already_there=already_there,
        kept_bytes=transfer.kept_bytes,
        refetched_bytes=transfer.refetched_bytes,
    )


def _fetch(released: ReleasedModel, url: str, target: Path, progress: Progress | None) -> _Transfer:
    """Download into the partial file, check it, and rename it to `target`."""
    part = target.with_name(target.name + ".part")
    with _locked(part) as file:
        transfer = _download(url, file, part, progress)
        os.fsync(file.fileno())
        _check(released, part)
        os.replace(part, target)
    return transfer


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Open the partial file under an exclusive lock."""
    with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PullFailed(f"{part}: another pull is writing this file; wait for it to end") from error
        yield file


def _download(url: str, file: BinaryIO, part: Path, progress: Progress | None) -> _Transfer:
    """Download the bytes that `file` lacks, and check its size."""
    had_bytes = file.seek(0, os.SEEK_END)
    again = f"{part} keeps what came; pull again to go on from there"

    # Read the response into the file, block by block
    try:
        response = _open(url, had_bytes)
        if response is None:
            return _Transfer(kept_bytes=had_bytes)
        with response:
            start_bytes, total_bytes = _span(response)
            if start_bytes not in (0, had_bytes):
                raise PullFailed(
                    f"{url}: asked for bytes from {had_bytes} on, got bytes from {start_bytes} on; {again}"
                )
            done_bytes = file.seek(start_bytes)
            while block := response.read(BLOCK_BYTES):
                done_bytes += file.write(block)
                if progress is not None:
                    progress(done_bytes, total_bytes)
    except urllib.error.HTTPError as error:
        raise PullFailed(
            f"{url}: the server answered {error.code} {error.reason}; check the address; {again}"
        ) from error
    except urllib.error.URLError as error:
        raise PullFailed(f"{url}: no connection ({error.reason}); check the network or the proxy; {again}") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise PullFailed(f"{url}: the connection broke ({error!r}); {again}") from error

    # Check the size
    if total_bytes is not None and done_bytes < total_bytes:
        raise PullFailed(f"{url}: the connection ended after {done_bytes} of {total_bytes} bytes; {again}")
    file.truncate()  # the earlier part may have been longer than the whole file
    file.flush()
    return _Transfer(kept_bytes=start_bytes, refetched_bytes=had_bytes - start_bytes)


def _open(url: str, had_bytes: int) -> http.client.HTTPResponse | None:
    """Request the bytes from `had_bytes` on; return None if the server has no more bytes."""
    headers = {"User-Agent": "gigamask"} | ({"Range": f"bytes={had_bytes}-"} if had_bytes else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and had_bytes:
            return None  # the file is complete, or too long: the checksum tells
        raise


def _span(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Read where the response's body begins within the file, and the file's size (None if the server sends none)."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if span is None:
            raise http.client.HTTPException(f"Content-Range {response.headers.get('Content-Range')!r}")
        return int(span[1]), None if span[2] == "*" else int(span[2])
    length = response.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _check(released: ReleasedModel, path: Path) -> None:
    """Check the file's SHA-256.

    Raises:
        Corrupt: The file is not the released file.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != released.sha256:
        raise Corrupt(
            f"{path}: its SHA-256 is {sha256}, that of {released.name} is {released.sha256}; "
            "the content is wrong: remove this file and pull again"
        )
