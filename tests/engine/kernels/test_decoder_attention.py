"""Who does the decoder's attention; that the twins agree is tested in `interpreted_triton/` and with the decoder."""

import sys
from types import SimpleNamespace

import pytest
import torch

from engine.kernels.decoder_attention import Cells, fastest, gather_from_cells, give_to_cells

CELLS = Cells(image_PNC=torch.zeros(1, 9, 16), position_NC=torch.zeros(9, 16))


def test_plain_torch_does_it_on_a_cpu() -> None:
    assert fastest(torch.device("cpu"), torch.float32, 256) == "reference"


def test_triton_asked_for_by_name_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(RuntimeError, match="the Triton twin of decoder_attention"):
        gather_from_cells(torch.zeros(1, 8, 16), CELLS, implementation="triton")
    tokens = torch.zeros(1, 2, 4, 16)
    with pytest.raises(RuntimeError, match="the Triton twin of decoder_attention"):
        give_to_cells(CELLS, tokens, tokens[..., 0], tokens, torch.nn.LayerNorm(16), implementation="triton")


@pytest.mark.parametrize(
    ("dtype", "width", "shared_kib", "chosen"),
    [
        (torch.bfloat16, 256, 227, "triton"),  # H100
        (torch.bfloat16, 128, 99, "triton"),  # RTX 4090
        (torch.float32, 256, 99, "reference"),
        (torch.bfloat16, 512, 227, "reference"),
        (torch.float64, 256, 227, "reference"),
    ],
)
def test_a_gpu_gets_the_kernels_where_they_fit_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    dtype: torch.dtype,
    width: int,
    shared_kib: int,
    chosen: str,
) -> None:
    pytest.importorskip("triton")
    properties = SimpleNamespace(shared_memory_per_block_optin=shared_kib * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    fastest.cache_clear()
    with caplog.at_level("INFO"):
        assert fastest(torch.device("cuda", 0), dtype, width) == chosen
    fastest.cache_clear()
    assert ("plain torch, four times the memory traffic" in caplog.text) == (chosen == "reference")


def test_without_triton_a_gpu_gets_plain_torch_and_is_told_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.decoder_attention_triton", None)
    fastest.cache_clear()
    assert fastest(torch.device("cuda", 0), torch.bfloat16, 256) == "reference"
    fastest.cache_clear()
    assert "install triton" in caplog.text
