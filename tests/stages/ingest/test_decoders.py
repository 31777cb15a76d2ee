"""Decoders: what a hostile photo does to its process, it does to nothing else."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from stages.ingest import decoders as module
from stages.ingest.config import IngestConfig
from stages.ingest.decoders import DecodedFile, DecoderFault, Decoders
from stages.ingest.normalise import Photo, Unusable
from stages.ingest.privacy import Concealed, Concealer
from tests.hostile.photos import png, tiff


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    opened = Decoders(IngestConfig(threads=1, decode_bytes=64 * 2**20), None)
    yield opened
    opened.close()


def decode(decoders: Decoders, path: Path, data: bytes) -> DecodedFile:
    path.write_bytes(data)
    return decoders.decode(path, lambda sha256: True)


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def reason(decoded: DecodedFile) -> str:
    assert isinstance(decoded.outcome, Unusable)
    return decoded.outcome.reason


def change_decoders(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Have a statement run in each decoder before it begins."""
    monkeypatch.setattr(module, "_PROGRAM", module._PROGRAM.replace("; main(", f"; {statement}; main("))


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def test_a_photo_that_ends_its_decoder_twice_is_a_reject_and_the_next_one_is_taken(
    decoders: Decoders, tmp_path: Path, pictures: SimpleNamespace
) -> None:
    before = children()
    good = pictures.encode(pictures.draw(1), "PNG")
    (tmp_path / "bad.png").write_bytes(good)

    def kill(_: str) -> bool:
        for pid in children() - before:
            os.kill(pid, signal.SIGSEGV)
        return True

    crashed = decoders.decode(tmp_path / "bad.png", kill)
    assert reason(crashed) == "crashed"
    assert "SIGSEGV" in str(crashed.outcome)
    assert crashed.sha256, "the reject names the file's content"
    assert isinstance(decode(decoders, tmp_path / "good.png", good).outcome, Photo)


def test_a_decoder_that_somebody_else_ended_costs_no_photo(
    decoders: Decoders, tmp_path: Path, pictures: SimpleNamespace
) -> None:
    before = children()
    killed: list[int] = []
    (tmp_path / "good.png").write_bytes(pictures.encode(pictures.draw(1), "PNG"))

    def kill_once(_: str) -> bool:
        if not killed:
            killed.extend(children() - before)
            os.kill(killed[0], signal.SIGKILL)
        return True

    assert isinstance(decoders.decode(tmp_path / "good.png", kill_once).outcome, Photo)
    assert killed


def test_decoders_that_somebody_kills_are_a_fault_that_is_tried_again_and_no_reject(
    decoders: Decoders, tmp_path: Path, pictures: SimpleNamespace
) -> None:
    before = children()
    (tmp_path / "good.png").write_bytes(pictures.encode(pictures.draw(1), "PNG"))

    def kill(_: str) -> bool:
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        return True

    with pytest.raises(DecoderFault, match="perhaps by the system, out of memory"):
        decoders.decode(tmp_path / "good.png", kill)
    assert isinstance(decoders.decode(tmp_path / "good.png", lambda _: True).outcome, Photo)


def test_a_bomb_is_refused_by_its_header(decoders: Decoders, tmp_path: Path) -> None:
    refused = decode(decoders, tmp_path / "bomb.png", png(6000, 6000, colour=6))
    assert isinstance(refused.outcome, Unusable)
    assert str(refused.outcome).startswith("too_large: decoding it takes about 275 MiB of memory; at most 64")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is limited on Linux alone")
def test_a_photo_that_needs_more_memory_than_its_header_says_gets_all_there_is_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_decoders(monkeypatch, "import stages.ingest.normalise as n; n._decoding_bytes = lambda image: 1000")
    lying = png(6000, 6000)
    for decode_bytes, expected in ((2**20, "out_of_memory"), (2**29, "")):
        decoders = Decoders(IngestConfig(decode_bytes=decode_bytes), None)
        try:
            decoded = decode(decoders, tmp_path / "lying.png", lying)
            assert (reason(decoded) if isinstance(decoded.outcome, Unusable) else "") == expected
        finally:
            decoders.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is limited on Linux alone")
@pytest.mark.parametrize("decode_bytes", [2**20, 2**26])
def test_a_photo_for_the_concealer_that_needs_too_much_memory_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decode_bytes: int
) -> None:
    change_decoders(monkeypatch, "import stages.ingest.normalise as n; n._decoding_bytes = lambda image: 1000")
    decoders = Decoders(IngestConfig(decode_bytes=decode_bytes, shortest_side_px=None), Concealer(detectors=()))
    try:
        outcome = decode(decoders, tmp_path / "lying.png", png(6000, 6000)).outcome
    finally:
        decoders.close()
    if decode_bytes == 2**20:
        assert isinstance(outcome, Unusable)
        assert outcome.reason == "out_of_memory"
    else:
        assert isinstance(outcome, Photo)


def test_the_concealer_gets_the_pixels_that_a_decoder_sends_in_strips(
    tmp_path: Path, pictures: SimpleNamespace
) -> None:
    seen: list[Image.Image] = []

    class Watching(Concealer):
        def __call__(self, image: Image.Image) -> Concealed:
            seen.append(image)
            return super().__call__(image)

    picture = Image.effect_noise((40, 600), 80).convert("RGB")
    decoders = Decoders(IngestConfig(), Watching(detectors=()))
    try:
        assert isinstance(decode(decoders, tmp_path / "good.png", encoded(picture)).outcome, Photo)
    finally:
        decoders.close()
    assert seen == [picture]


def test_a_tiff_of_80000_directories_is_refused_at_once(decoders: Decoders, tmp_path: Path) -> None:
    assert reason(decode(decoders, tmp_path / "deep.tif", tiff(64, 64, directories=80_000))) == "several_pages"


def test_a_photo_that_takes_too_much_time_is_a_reject_and_its_decoder_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: SimpleNamespace
) -> None:
    endless = (
        "d.prepare = lambda data, **how: all(True for _ in iter(int, 1)) if len(data) == 9 else prepare(data, **how)"
    )
    change_decoders(
        monkeypatch,
        f"import stages.ingest.decoder_process as d; d.MAX_CPU_S = 2.0; prepare = d.prepare; {endless}",
    )
    decoders = Decoders(IngestConfig(), None)
    before = children()
    try:
        assert reason(decode(decoders, tmp_path / "slow.png", b"nine bytes"[:9])) == "too_slow"
        assert children() == before
        assert isinstance(
            decode(decoders, tmp_path / "good.png", pictures.encode(pictures.draw(1), "PNG")).outcome, Photo
        )
    finally:
        decoders.close()


@pytest.mark.parametrize("kind", ["needs", "photo"])
def test_the_time_of_a_photo_stands_still_while_its_decoder_sends(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: SimpleNamespace
) -> None:
    until = "(lambda end: all(time.process_time() < end for _ in iter(int, 1)))(time.process_time() + 2.5)"
    change_decoders(
        monkeypatch,
        "import time; import stages.ingest.decoder_process as d; d.MAX_CPU_S = 2.0; send = d._send; "
        f"d._send = lambda to, kind, **how: (kind == {kind!r} and {until}, send(to, kind, **how))",
    )
    decoders = Decoders(IngestConfig(), None)
    try:
        good = pictures.encode(pictures.draw(1), "PNG")
        assert isinstance(decode(decoders, tmp_path / "good.png", good).outcome, Photo)
    finally:
        decoders.close()


def test_a_photo_that_is_not_wanted_is_not_decoded(decoders: Decoders, tmp_path: Path) -> None:
    (tmp_path / "known.png").write_bytes(b"no picture at all")
    assert decoders.decode(tmp_path / "known.png", lambda sha256: False).outcome is None


def test_a_mistake_in_a_decoder_is_no_reject(tmp_path: Path, pictures: SimpleNamespace) -> None:
    config = IngestConfig()
    object.__setattr__(config, "min_side_px", "as many as you like")
    decoders = Decoders(config, None)
    try:
        with pytest.raises(DecoderFault, match="TypeError"):
            decode(decoders, tmp_path / "good.png", pictures.encode(pictures.draw(1), "PNG"))
    finally:
        decoders.close()


def test_a_decoder_that_cannot_start_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROGRAM", "raise SystemExit('no such library')")
    with pytest.raises(DecoderFault, match=r"could not be started.*no such library"):
        decode(Decoders(IngestConfig(), None), tmp_path / "any.png", b"")


def test_a_process_that_the_system_refuses_is_a_fault_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(DecoderFault, match=r"could not be started.*nowhere"):
        decode(Decoders(IngestConfig(), None), tmp_path / "any.png", b"")
    assert os.listdir("/proc/self/fd") == before


def test_photos_share_the_memory_and_the_largest_waits_for_all_of_it() -> None:
    budget = module._Budget(10)
    order: list[str] = []

    def large() -> None:
        with budget.hold(99):
            order.append("large")

    with budget.hold(4), budget.hold(6):
        thread = threading.Thread(target=large)
        thread.start()
        time.sleep(0.05)
        order.append("small")
    thread.join()
    assert order == ["small", "large"]


def test_decoders_end_with_the_ingest(tmp_path: Path, pictures: SimpleNamespace) -> None:
    before = children()
    decoders = Decoders(IngestConfig(), None)
    decode(decoders, tmp_path / "good.png", pictures.encode(pictures.draw(1), "PNG"))
    own = children() - before
    assert own
    decoders.close()
    assert not own & children()
