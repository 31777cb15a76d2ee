"""Camera: all steps from a scene's colours to the bytes of its image. No step changes a mask.

Shape suffixes: B scenes, S side in pixels.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch.nn import functional

from engine.scenes.random_draws import RandomDraws
from engine.scenes.textures import NUM_SMOOTH, Atlas

BLUR_TAPS = 9
"""Number of weights of a blur along one axis."""
DCT_SIDE = 8
"""Side of a JPEG block, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """Camera settings of B scenes; each field is [B] or [B, k]."""

    field: torch.Tensor
    """Light that varies smoothly over the image: atlas layer, atlas pixels per side, shift u, shift v, strength."""
    cast: torch.Tensor
    """Shadow from outside the image: atlas layer, atlas pixels per side, shift u, v, strength, threshold, sharpness."""
    taps_x: torch.Tensor
    """Weights of the blur along x, which sum to 1."""
    taps_y: torch.Tensor
    """Weights of the blur along y, which sum to 1."""
    exposure: torch.Tensor
    """Mean brightness to which the image is scaled, in [0, 1]; 0: no exposure control."""
    gamma: torch.Tensor
    """Exponent applied to brightness; 1 changes nothing."""
    contrast: torch.Tensor
    """Factor of the distance from mid-grey; 1 changes nothing."""
    brightness: torch.Tensor
    """Offset added to brightness, for brightness in [0, 1]."""
    grey: torch.Tensor
    """1 for a grey image, 0 for a coloured one."""
    inverted: torch.Tensor
    """1 for a negative, 0 otherwise."""
    noise: torch.Tensor
    """Standard deviation of the sensor noise, for brightness in [0, 1]."""
    grain: torch.Tensor
    """Fraction of the noise that is correlated between neighbouring pixels."""
    jpeg_step: torch.Tensor
    """Base step to which frequencies of 8 x 8 blocks are rounded, for brightness in [0, 1]; 0: no JPEG."""

    def rows(self, rows: slice) -> "Cameras":
        """Select the scenes of a slice."""
        return Cameras(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def draw_cameras(draws: RandomDraws, microscopy_B: torch.Tensor) -> Cameras:
    """Draw random camera settings for each scene.

    Most microscopy scenes are grey, and no microscopy scene gets shadows from objects outside the scene.
    """
    # Blur
    n = len(microscopy_B)
    is_sharp = draws.chance(0.65, n)
    sigma = torch.where(is_sharp, draws.uniform(0.2, 0.6, n), draws.uniform(0.6, 1.9, n))
    gauss = _sharpened(draws, _gaussian_taps(sigma))
    motion = draws.choose((0.93, 0.035, 0.035), n)
    box = torch.where(_tap_distance() <= draws.uniform(1, 4, n, 1), 1.0, 0.0)
    box = box / box.sum(1, keepdim=True)

    # Light, exposure, colour, noise and compression
    def field(low: float, high: float) -> list[torch.Tensor]:
        shift = draws.uniform(0, 256, 2, n)
        return [draws.integers(0, NUM_SMOOTH, n).float(), draws.log_uniform(low, high, n), shift[0], shift[1]]

    cast_strength = draws.uniform(0.15, 0.55, n) * draws.chance(0.2, n) * ~microscopy_B
    return Cameras(
        field=torch.stack([*field(20, 100), draws.uniform(0.1, 0.5, n) * draws.chance(0.4, n)], 1),
        cast=torch.stack([*field(25, 90), cast_strength, draws.uniform(-0.3, 0.3, n), draws.log_uniform(6, 60, n)], 1),
        taps_x=torch.where((motion == 1)[:, None], box, gauss),
        taps_y=torch.where((motion == 2)[:, None], box, gauss),
        exposure=draws.uniform(0.3, 0.55, n) * draws.chance(0.6, n) * ~microscopy_B,
        gamma=(draws.normal(n) * 0.35 * draws.chance(0.5, n)).exp(),
        contrast=torch.where(draws.chance(0.35, n), draws.uniform(0.3, 1.5, n), 1.0),
        brightness=draws.normal(n) * 0.09 * draws.chance(0.4, n),
        grey=(draws.chance(0.1, n) | (microscopy_B & draws.chance(0.7, n))).float(),
        inverted=draws.chance(0.04, n).float(),
        noise=draws.normal(n).abs() * 0.02,
        grain=draws.uniform(0, 0.8, n) * draws.chance(0.3, n),
        jpeg_step=draws.log_uniform(0.02, 0.3, n) * draws.chance(0.6, n),
    )


def clean_cameras(scenes: int) -> Cameras:
    """Make camera settings without effect, for tests and checks; `apply_camera` still softens borders with them."""
    zero, one = torch.zeros(scenes), torch.ones(scenes)
    centre = (_tap_distance() == 0).float().expand(scenes, BLUR_TAPS)
    return Cameras(
        field=torch.zeros(scenes, 5), cast=torch.zeros(scenes, 7), taps_x=centre, taps_y=centre, exposure=zero,
        gamma=one, contrast=one, brightness=zero, grey=zero, inverted=zero, noise=zero, grain=zero, jpeg_step=zero,
    )  # fmt: skip


def _tap_distance() -> torch.Tensor:
    """Return the distance of each blur weight from the middle one, in pixels, [1, BLUR_TAPS]."""
    return (torch.arange(BLUR_TAPS) - BLUR_TAPS // 2).abs()[None]


def _gaussian_taps(sigma_B: torch.Tensor) -> torch.Tensor:
    weights = torch.exp(-0.5 * (_tap_distance() / sigma_B[:, None]).square())
    return weights / weights.sum(1, keepdim=True)


def _sharpened(draws: RandomDraws, taps: torch.Tensor) -> torch.Tensor:
    """Subtract a wider blur from the weights of three in ten cameras, which sharpens the image and leaves halos."""
    amount = draws.uniform(0.2, 0.9, len(taps), 1) * draws.chance(0.3, len(taps), 1)
    return taps * (1 + amount) - amount * _gaussian_taps(torch.full((len(taps),), 1.3))


def apply_camera(
    colours_B3SS: torch.Tensor, ids_BSS: torch.Tensor, cameras: Cameras, atlas: Atlas, generator: torch.Generator
) -> torch.Tensor:
    """Turn colours into uint8 images [B, 3, S, S] by light, soft borders, blur, tone, noise and JPEG blocks."""
    device = colours_B3SS.device

    def setting(name: str) -> torch.Tensor:
        value = getattr(cameras, name).to(device, non_blocking=True)
        return value[:, None, None, None] if value.dim() == 1 else value

    # Light and optics
    image = colours_B3SS * _light(setting("field"), setting("cast"), ids_BSS.shape[1], atlas)[:, None]
    image = soften_borders(image.clamp_(0, 1.5), ids_BSS)
    image = _exposed(_blur(image, setting("taps_x"), setting("taps_y")), setting("exposure")).clamp_(1e-4, 1)

    # Tone and colour
    image = image.pow_(setting("gamma"))
    image = image.sub_(0.5).mul_(setting("contrast")).add_(setting("brightness") + 0.5)
    image = torch.lerp(image, image.mean(1, keepdim=True), setting("grey"))
    image = torch.lerp(image, 1 - image, setting("inverted"))

    # Noise and compression
    image = image + _sensor_noise(image, setting("noise"), setting("grain"), setting("grey"), generator)
    image = _jpeg(image.clamp_(0, 1), setting("jpeg_step"))
    return image.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def _light(field: torch.Tensor, cast: torch.Tensor, side: int, atlas: Atlas) -> torch.Tensor:
    """Compute the light over each scene [B, S, S]; it is smooth, so it is sampled at a quarter of the resolution."""
    step = torch.linspace(0, 1, max(2, side // 4), device=field.device)
    u, v = step[None, None, :], step[None, :, None]

    def noise(settings: torch.Tensor) -> torch.Tensor:
        layer, scale, shift_u, shift_v = settings[:, :4, None, None].unbind(1)
        return atlas.sample(layer, u * scale + shift_u + 0 * v, v * scale + shift_v + 0 * u)

    even = 1 + field[:, 4, None, None] * noise(field)
    strength, threshold, sharpness = cast[:, 4:, None, None].unbind(1)
    dark = strength * torch.sigmoid((noise(cast) - threshold) * sharpness)
    coarse = (even * (1 - dark))[:, None]
    return functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)[:, 0]


def soften_borders(image: torch.Tensor, ids_BSS: torch.Tensor) -> torch.Tensor:
    """Soften the borders between leaves (smallest regions), as anti-aliasing does.

    Each pixel with another leaf above, below, left or right gets the binomial mean of its 3 x 3 neighbourhood.
    """
    padded = functional.pad(ids_BSS[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0]
    centre = padded[:, 1:-1, 1:-1]
    border = (padded[:, :-2, 1:-1] != centre) | (padded[:, 2:, 1:-1] != centre)
    border |= (padded[:, 1:-1, :-2] != centre) | (padded[:, 1:-1, 2:] != centre)
    binomial = torch.tensor([[0.25, 0.5, 0.25]], device=image.device).expand(len(image), 3)
    return torch.where(border[:, None], _blur(image, binomial, binomial), image)


def _exposed(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Scale each image towards the mean brightness `target`, by a factor of 0.4 to 2.5 that spares the highlights."""
    mean, spread = image.mean((1, 2, 3), keepdim=True), image.std((1, 2, 3), keepdim=True)
    gain = torch.minimum(target / mean.clamp_min(0.01), 1.1 / (mean + 1.5 * spread + 0.01)).clamp(0.4, 2.5)
    return image * torch.where(target > 0, gain, 1.0)


def _blur(image: torch.Tensor, taps_x: torch.Tensor, taps_y: torch.Tensor) -> torch.Tensor:
    """Blur each image along x, then along y, with the weights of its scene."""
    side, reach = image.shape[-1], taps_x.shape[1] // 2
    for axis, taps in ((3, taps_x), (2, taps_y)):
        margins = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
        padded = functional.pad(image, margins, mode="replicate")
        image = padded.narrow(axis, 0, side) * taps[:, 0, None, None, None]
        for k in range(1, taps.shape[1]):
            image.addcmul_(padded.narrow(axis, k, side), taps[:, k, None, None, None])
    return image


def _sensor_noise(
    image: torch.Tensor, sigma: torch.Tensor, grain: torch.Tensor, grey: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Draw random Gaussian noise, partly correlated between neighbouring pixels; grey images get grey noise."""
    white = torch.randn(image.shape, generator=generator, device=image.device)
    white = torch.lerp(white, white[:, :1], grey)
    lumpy = white + white.roll(1, 2) + white.roll(1, 3) + white.roll((1, 1), (2, 3))
    return torch.lerp(white, lumpy, 0.5 * grain).mul_(sigma)


def _jpeg(image: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Round the frequencies of 8 x 8 blocks as JPEG does: high frequencies more coarsely; no colour subsampling."""
    # Pad to whole blocks
    batch, channels, side, _ = image.shape
    margin = -side % DCT_SIDE
    padded = functional.pad(image, (0, margin, 0, margin), mode="replicate")
    blocks = (side + margin) // DCT_SIDE

    # Transform: rows first, as one matrix product with 8 columns; then columns, 8 image rows at a time
    k = torch.arange(DCT_SIDE, device=image.device, dtype=torch.float32)
    dct = torch.cos(math.pi / DCT_SIDE * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / DCT_SIDE)
    dct[0] *= math.sqrt(0.5)
    across = (padded.reshape(-1, DCT_SIDE) @ dct.t()).view(batch * channels * blocks, DCT_SIDE, -1)
    frequencies = (dct @ across).view(batch, -1, DCT_SIDE, blocks, DCT_SIDE)

    # Round, and transform back
    rounding = (0.3 + 0.1 * (k[:, None] + k))[:, None] * step[..., None].clamp_min(1e-6)
    rounded = frequencies.div_(rounding).round_().mul_(rounding)
    down = dct.t() @ rounded.view(batch * channels * blocks, DCT_SIDE, -1)
    restored = (down.reshape(-1, DCT_SIDE) @ dct).view(padded.shape)[:, :, :side, :side]
    return torch.where(step > 0, restored, image)
