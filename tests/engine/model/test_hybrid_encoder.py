"""The seed's image encoder."""

import pytest
import torch

from engine.model.config import HybridConfig
from engine.model.hybrid_encoder import HybridEncoder

SMALL = HybridConfig(widths=(8, 8, 16, 16), residual_blocks=1, attention_blocks=0, attention_heads=2)


def encoder(config: HybridConfig) -> HybridEncoder:
    torch.manual_seed(0)
    return HybridEncoder(config, out_width=24).eval()


def test_embeddings_have_an_eighth_of_the_input_side() -> None:
    assert encoder(HybridConfig())(torch.randn(2, 3, 64, 96)).shape == (2, 24, 8, 12)


def test_a_window_of_an_image_embeds_as_in_the_whole_image() -> None:
    """Away from the borders nothing tells where the window lies: training on windows is training on images."""
    pixels = torch.randn(1, 3, 256, 256)
    net = encoder(SMALL)
    with torch.no_grad():
        whole, window = net(pixels), net(pixels[:, :, 64:224, 32:192])
    torch.testing.assert_close(window[:, :, 7:13, 7:13], whole[:, :, 15:21, 11:17], rtol=1e-4, atol=1e-4)


def test_small_things_reach_the_embedding() -> None:
    """A single bright pixel changes the embedding most around its own cell."""
    net = encoder(SMALL)
    pixels = torch.zeros(1, 3, 64, 64)
    lit = pixels.clone()
    lit[:, :, 27, 43] = 5
    with torch.no_grad():
        change = (net(lit) - net(pixels)).abs().sum(1)[0]
    row, column = divmod(int(change.argmax()), 8)
    assert abs(row - 27 // 8) <= 1
    assert abs(column - 43 // 8) <= 1


def test_sides_that_are_no_multiple_of_sixteen_are_refused() -> None:
    with pytest.raises(ValueError, match="40 x 64 px: both sides must be multiples of 16"):
        encoder(SMALL)(torch.randn(1, 3, 40, 64))


def test_heads_must_divide_the_last_width() -> None:
    with pytest.raises(ValueError, match="attention_heads 5 does not divide"):
        HybridConfig(attention_heads=5)
