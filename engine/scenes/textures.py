"""Atlas of textures that tile, made once on the device, and its bilinear lookup.

Shape suffixes: T textures, A atlas side; P stands for any shape of pixels.
"""

import functools
import math
from dataclasses import dataclass

import torch

ATLAS_SIDE = 256
"""Side of a texture, in atlas pixels."""
NUM_SMOOTH = 16
"""Number of layers with smooth noise, the first ones of the atlas, for light, bent borders and parts from noise."""
NUM_TEXTURES = 96
"""Number of layers (textures) of the atlas."""


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Textures on one device."""

    layers_TAA: torch.Tensor
    """Textures, uint8; each has mean 127.5 and a standard deviation of about 54."""

    def sample(self, layer: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Sample the texture number `layer` (int64) at u, v in atlas pixels; return values in [-1, 1].

        Textures repeat beyond their borders. The arguments are broadcast against each other.
        """
        u_floor, v_floor = u.floor(), v.floor()
        fu, fv = u - u_floor, v - v_floor
        mask = ATLAS_SIDE - 1
        column, row = u_floor.int() & mask, v_floor.int() & mask
        base = layer.int() * (ATLAS_SIDE * ATLAS_SIDE)
        top, bottom = base + row * ATLAS_SIDE, base + ((row + 1) & mask) * ATLAS_SIDE
        right = (column + 1) & mask
        flat = self.layers_TAA.view(-1)
        a, b = _pick(flat, top + column), _pick(flat, top + right)
        c, d = _pick(flat, bottom + column), _pick(flat, bottom + right)
        upper, lower = torch.lerp(a, b, fu), torch.lerp(c, d, fu)
        return torch.lerp(upper, lower, fv).mul_(1 / 127.5).sub_(1)


def _pick(flat: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return flat.index_select(0, index.reshape(-1)).view(index.shape).float()


@functools.lru_cache(maxsize=4)
def default_atlas(device: str) -> Atlas:
    """Return the default atlas, which is the same in every process on one kind of device."""
    return make_atlas(0, torch.device(device))


def make_atlas(seed: int, device: torch.device) -> Atlas:
    """Make an atlas of random textures, which takes about half a second on one CPU core."""
    draws = _Painter(seed, device)
    layers = [draws.noise(draws.between(1.6, 2.6)) for _ in range(NUM_SMOOTH)]
    painters = (
        draws.rough, draws.rough, draws.ridged, draws.marble, draws.weave, draws.cells, draws.pebbles, draws.strokes,
        draws.bricks, draws.speckle,
    )  # fmt: skip
    layers += [painters[i % len(painters)]() for i in range(NUM_TEXTURES - NUM_SMOOTH)]
    return Atlas(layers_TAA=torch.stack([_to_bytes(layer) for layer in layers]))


def _to_bytes(layer_AA: torch.Tensor) -> torch.Tensor:
    level = (layer_AA - layer_AA.mean()) / layer_AA.std().clamp_min(1e-6)
    return (127.5 + 54 * level).clamp_(0, 255).round_().to(torch.uint8)


class _Painter:
    """Painter of random textures; each method for a texture returns float32 [A, A] that tiles."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.host = torch.Generator().manual_seed(seed)
        self.device = device
        axis = torch.arange(ATLAS_SIDE, dtype=torch.float32, device=device) / ATLAS_SIDE
        self.y, self.x = torch.meshgrid(axis, axis, indexing="ij")

    def between(self, low: float, high: float) -> float:
        """Draw a random number, uniform in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self.host))

    def whole(self, low: int, high: int) -> int:
        """Draw a random whole number, uniform in [low, high)."""
        return int(torch.randint(low, high, (), generator=self.host))

    def normal(self, *shape: int) -> torch.Tensor:
        """Draw random numbers from the standard normal distribution."""
        return torch.randn(shape, generator=self.host).to(self.device)

    def noise(self, exponent: float, *, stretch: float = 1.0, turn: float = 0.0) -> torch.Tensor:
        """Paint noise of amplitude 1 / frequency^exponent; frequencies are stretched across the direction `turn`."""
        fy = torch.fft.fftfreq(ATLAS_SIDE, device=self.device)[:, None]
        fx = torch.fft.rfftfreq(ATLAS_SIDE, device=self.device)[None]
        along = fx * math.cos(turn) + fy * math.sin(turn)
        across = (fy * math.cos(turn) - fx * math.sin(turn)) * stretch
        frequency = (along.square() + across.square()).sqrt()
        frequency[0, 0] = 1.0
        spectrum = torch.fft.rfft2(self.normal(ATLAS_SIDE, ATLAS_SIDE)) / frequency**exponent
        spectrum[0, 0] = 0
        field = torch.fft.irfft2(spectrum, s=(ATLAS_SIDE, ATLAS_SIDE))
        return field / field.std().clamp_min(1e-6)

    def waves(self, low: int, high: int) -> torch.Tensor:
        """Compute the phase, in radians, of a random plane wave; it tiles, with whole periods along both sides."""
        periods, turn = self.between(low, high), self.between(0, math.pi)
        kx, ky = round(periods * math.cos(turn)), round(periods * math.sin(turn))
        return 2 * math.pi * (kx * self.x + ky * self.y)

    def rough(self) -> torch.Tensor:
        """Paint rough noise."""
        return self.noise(self.between(0.4, 1.8))

    def ridged(self) -> torch.Tensor:
        """Paint the absolute value of noise, which has ridges at 0."""
        return self.noise(self.between(1.0, 2.0)).abs() + 0.15 * self.noise(0.6)

    def marble(self) -> torch.Tensor:
        """Paint marble from bent waves."""
        bend = self.between(0.5, 5.0) * self.noise(self.between(1.4, 2.2))
        return torch.sin(self.waves(2, 30) + bend) + 0.15 * self.noise(0.8)

    def weave(self) -> torch.Tensor:
        """Paint fabric from two crossing waves."""
        bend = self.between(0.0, 0.8) * self.noise(2.0)
        a, b = torch.sin(self.waves(6, 40) + bend), torch.sin(self.waves(6, 40) - bend)
        mix = (a, a * b, torch.maximum(a, b), torch.sign(a) + 0.3 * b)[self.whole(0, 4)]
        return mix + 0.2 * self.noise(0.9)

    def strokes(self) -> torch.Tensor:
        """Paint grass, fur or straw from noise that is stretched along one direction."""
        field = self.noise(self.between(0.1, 0.6), stretch=self.between(4, 14), turn=self.between(0, math.pi))
        return field if self.whole(0, 2) else field.sign() * field.abs().sqrt()

    def speckle(self) -> torch.Tensor:
        """Paint separate dots from the peaks of noise."""
        field = self.noise(self.between(0.6, 1.2))
        return (field - self.between(0.4, 1.4)).clamp_min(0).sqrt() + 0.05 * self.noise(0.8)

    def cells(self) -> torch.Tensor:
        """Paint Voronoi cells of different brightness."""
        nearest, _, level = self._sites(self.whole(4, 28))
        return level + self.between(-1.5, 1.5) * nearest + 0.2 * self.noise(1.0)

    def pebbles(self) -> torch.Tensor:
        """Paint pebbles from Voronoi cells with gaps between them."""
        nearest, second, level = self._sites(self.whole(8, 36))
        gap = ((second - nearest) * self.between(3, 8)).clamp(0, 1)
        return gap * (1.5 + 0.6 * level) + 0.15 * self.noise(1.0)

    def bricks(self) -> torch.Tensor:
        """Paint bricks or tiles with joints."""
        rows, columns = 2 * self.whole(2, 16), self.whole(2, 16)
        v = self.y * rows
        row = v.floor()
        u = self.x * columns + (0.5 * (row % 2) if self.whole(0, 3) else 0.0)
        levels = self.normal(rows, columns)
        level = levels[row.long() % rows, u.floor().long() % columns]
        thin = self.between(0.04, 0.12)
        joint = ((v - row) < thin * 1.5) | ((u - u.floor()) < thin)
        return torch.where(joint, self.between(-3, 3), level * self.between(0.2, 1.0)) + 0.3 * self.noise(1.0)

    def _sites(self, cells: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Place random points in the squares of a grid, and compare each pixel with them.

        Returns:
            Distance to the nearest point, distance to the second nearest (both in squares), brightness of the nearest.
        """
        jitter = torch.rand((2, cells, cells), generator=self.host).to(self.device)
        levels = self.normal(cells, cells)
        u, v = self.x * cells, self.y * cells
        column, row = u.floor().long(), v.floor().long()
        nearest = torch.full_like(u, 9.0)
        second, level = nearest.clone(), torch.zeros_like(u)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                r, c = (row + dy) % cells, (column + dx) % cells
                away = torch.hypot(column + dx + jitter[0, r, c] - u, row + dy + jitter[1, r, c] - v)
                second = torch.minimum(second, torch.maximum(nearest, away))
                level = torch.where(away < nearest, levels[r, c], level)
                nearest = torch.minimum(nearest, away)
        return nearest, second, level
