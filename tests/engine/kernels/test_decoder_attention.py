"""Choice of the decoder attention's backend; `interpreted_triton/` and the decoder's tests compare the backends."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from engine.kernels.decoder_attention import Cells, attend_to_cells, attend_to_tokens, fastest_backend

CELLS = Cells(image_PNC=torch.zeros(1, 9, 16), position_NC=torch.zeros(9, 16))


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    fastest_backend.cache_clear()
    yield
    fastest_backend.cache_clear()


def test_plain_torch_does_it_on_a_cpu() -> None:
    assert fastest_backend(torch.device("cpu"), torch.float32, 256, 8) == "reference"


def test_triton_asked_for_by_name_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(RuntimeError, match="the Triton backend of decoder_attention"):
        attend_to_cells(torch.zeros(1, 8, 16), CELLS, backend="triton")
    tokens = torch.zeros(1, 2, 4, 16)
    with pytest.raises(RuntimeError, match="the Triton backend of decoder_attention"):
        attend_to_tokens(CELLS, tokens, tokens[..., 0], tokens, torch.nn.LayerNorm(16), backend="triton")


@pytest.mark.parametrize(
    ("dtype", "width", "heads", "shared_kib", "chosen"),
    [
        (torch.bfloat16, 256, 8, 227, "triton"),  # H100
        (torch.bfloat16, 128, 4, 99, "triton"),  # RTX 4090
        (torch.float32, 256, 8, 99, "reference"),
        (torch.bfloat16, 512, 8, 227, "reference"),
        (torch.bfloat16, 256, 16, 227, "reference"),
        (torch.float64, 256, 8, 227, "reference"),
    ],
)
def test_a_gpu_gets_the_kernels_where_they_fit_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    dtype: torch.dtype,
    width: int,
    heads: int,
    shared_kib: int,
    chosen: str,
) -> None:
    pytest.importorskip("triton")
    properties = SimpleNamespace(shared_memory_per_block_optin=shared_kib * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    with caplog.at_level("INFO"):
        assert fastest_backend(torch.device("cuda", 0), dtype, width, heads) == chosen
    assert ("plain torch, four times the memory traffic" in caplog.text) == (chosen == "reference")


def test_without_triton_a_gpu_gets_plain_torch_and_is_told_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.decoder_attention_triton", None)
    assert fastest_backend(torch.device("cuda", 0), torch.bfloat16, 256, 8) == "reference"
    assert "install triton" in caplog.text
