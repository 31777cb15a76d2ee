"""The atlas: repeatable, of even contrast, tiling, interpolated."""

import pytest
import torch

from engine.scenes.textures import ATLAS_SIDE, NUM_TEXTURES, Atlas, default_atlas, make_atlas


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return default_atlas("cpu")


def test_a_seed_decides_the_atlas(atlas: Atlas) -> None:
    assert torch.equal(atlas.layers_TAA, make_atlas(0, torch.device("cpu")).layers_TAA)
    assert not torch.equal(atlas.layers_TAA, make_atlas(1, torch.device("cpu")).layers_TAA)


def test_every_texture_has_contrast(atlas: Atlas) -> None:
    assert atlas.layers_TAA.shape == (NUM_TEXTURES, ATLAS_SIDE, ATLAS_SIDE)
    assert (atlas.layers_TAA.float().std((1, 2)) > 25).all()


def test_whole_coordinates_read_texels_and_repeat_after_a_side(atlas: Atlas) -> None:
    u, v = torch.tensor([3.0, 255.0, -1.0]), torch.tensor([7.0, 0.0, 511.0])
    values = atlas.sample(torch.tensor(20), u, v)
    texels = atlas.layers_TAA[20, [7, 0, 255], [3, 255, 255]].float() / 127.5 - 1
    assert torch.allclose(values, texels, atol=1e-6)
    assert torch.allclose(values, atlas.sample(torch.tensor(20), u + ATLAS_SIDE, v - ATLAS_SIDE))


def test_half_coordinates_mix_neighbours(atlas: Atlas) -> None:
    middle = atlas.sample(torch.tensor(3), torch.tensor([255.5]), torch.tensor([10.0]))
    ends = atlas.layers_TAA[3, 10, [255, 0]].float() / 127.5 - 1
    assert torch.allclose(middle, ends.mean())
