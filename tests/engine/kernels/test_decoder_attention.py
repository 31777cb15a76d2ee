"""Who does the decoder's attention; that the twins agree is tested in `interpreted_triton/` and with the decoder."""

import sys

import pytest
import torch

from engine.kernels.decoder_attention import Cells, fastest, gather_from_cells, give_to_cells

CELLS = Cells(image_PNC=torch.zeros(1, 9, 16), position_NC=torch.zeros(9, 16))


def test_plain_torch_does_it_on_a_cpu() -> None:
    assert fastest("cpu") == "reference"


def test_triton_asked_for_by_name_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(RuntimeError, match="the Triton twin of decoder_attention"):
        gather_from_cells(torch.zeros(1, 8, 16), CELLS, implementation="triton")
    tokens = torch.zeros(1, 2, 4, 16)
    with pytest.raises(RuntimeError, match="the Triton twin of decoder_attention"):
        give_to_cells(CELLS, tokens, tokens[..., 0], tokens, torch.nn.LayerNorm(16), implementation="triton")


def test_without_triton_a_gpu_falls_back_to_plain_torch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "engine.kernels.decoder_attention_triton", None)
    fastest.cache_clear()
    with caplog.at_level("WARNING"):
        assert fastest("cuda") == "reference"
    fastest.cache_clear()
    assert "plain torch, several times the memory traffic" in caplog.text
