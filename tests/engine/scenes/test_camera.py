"""The camera changes images in the stated ways, and never masks."""

import torch

from engine.scenes.camera import Cameras, apply_camera, clean_cameras, draw_cameras, soften_borders
from engine.scenes.random_draws import RandomDraws
from engine.scenes.textures import default_atlas

IDS = torch.zeros(1, 32, 32, dtype=torch.int64)
IDS[:, :, 16:] = 1
IMAGE = torch.where(IDS[:, None] == 1, 0.8, 0.2).expand(1, 3, 32, 32)


def shot(cameras: Cameras, image: torch.Tensor = IMAGE, ids: torch.Tensor = IDS) -> torch.Tensor:
    return apply_camera(image.clone(), ids, cameras, default_atlas("cpu"), torch.Generator().manual_seed(0))


def clean(**settings: float) -> Cameras:
    values = vars(clean_cameras(1)) | {name: torch.tensor([value]) for name, value in settings.items()}
    return Cameras(**values)


def test_a_clean_camera_changes_only_the_pixels_beside_a_border() -> None:
    image = shot(clean())
    assert (image[..., :15] == 51).all()
    assert (image[..., 17:] == 204).all()
    assert ((image[..., 15:17] > 51) & (image[..., 15:17] < 204)).all()


def test_borders_are_softened_by_the_binomial_mean() -> None:
    soft = soften_borders(IMAGE, IDS)
    assert torch.allclose(soft[..., 15], torch.tensor(0.2 * 0.75 + 0.8 * 0.25))
    assert torch.allclose(soft[..., 16], torch.tensor(0.8 * 0.75 + 0.2 * 0.25))


def test_blur_weights_sum_to_one_even_when_sharpening() -> None:
    cameras = draw_cameras(RandomDraws(0), torch.zeros(200, dtype=torch.bool))
    for taps in (cameras.taps_x, cameras.taps_y):
        assert torch.allclose(taps.sum(1), torch.ones(200), atol=1e-5)


def test_fine_rounding_of_frequencies_gives_the_image_back_and_coarse_rounding_does_not() -> None:
    noise = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(1, 30, 30, dtype=torch.int64)
    plain = shot(clean(), noise, ids).int()
    fine = shot(clean(jpeg_step=1e-3), noise, ids).int()
    coarse = shot(clean(jpeg_step=0.5), noise, ids).int()
    assert (plain - fine).abs().max() <= 1
    assert (plain - coarse).abs().float().mean() > 4


def test_exposure_moves_the_mean_and_inversion_turns_it_round() -> None:
    assert abs(float(shot(clean(exposure=0.3)).float().mean()) / 255 - 0.3) < 0.01
    assert torch.equal(shot(clean(inverted=1.0)), 255 - shot(clean()))


def test_a_grey_camera_gives_equal_channels() -> None:
    colourful = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    image = shot(clean(grey=1.0, noise=0.05), colourful)
    assert torch.equal(image[:, 0], image[:, 1])
    assert torch.equal(image[:, 0], image[:, 2])
