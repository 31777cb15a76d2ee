"""Sizes of a SAM network, their checks, and their JSON form on a model card.

`VIT_B`, `VIT_L` and `VIT_H` are the three networks of the original release ("Segment Anything", appendix A). `MOBILE`
is the network of MobileSAM (Zhang et al. 2023): the same decoder with a small image encoder. This module imports no
torch: a card is read without it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True, kw_only=True)
class VitConfig:
    """Sizes of a ViT image encoder. Each patch is a square of `SamConfig.embedding_stride` pixels a side."""

    width: int
    """Number of channels of a token."""
    depth: int
    """Number of transformer blocks."""
    heads: int
    """Number of attention heads; divides `width`."""
    global_blocks: tuple[int, ...]
    """Indices of the blocks that attend to the whole grid; the others attend within windows."""
    window_side: int = 14
    """Side of an attention window, in tokens."""
    mlp_ratio: int = 4
    """Hidden width of the perceptrons, as a multiple of `width`."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.window_side, self.mlp_ratio) < 1:
            raise ValueError(f"{self}: every size must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide the encoder's width {self.width}")
        if not all(0 <= block < self.depth for block in self.global_blocks):
            raise ValueError(f"global_blocks {self.global_blocks}: expected indices below depth {self.depth}")


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """Sizes of a `HybridEncoder`."""

    stride: ClassVar[int] = 8
    """Number of input pixels per cell of the embedding, along a side."""
    window_multiple: ClassVar[int] = 16
    """Divisor of both sides of the input, in pixels."""
    widths: tuple[int, int, int, int] = (24, 48, 96, 192)
    """Numbers of channels at strides 2, 4, 8 and 16."""
    residual_blocks: int = 2
    """Number of residual blocks at stride 4, and also at stride 8."""
    attention_blocks: int = 4
    """Number of transformer blocks at stride 16."""
    attention_heads: int = 6
    """Number of attention heads of the transformer blocks; divides the last width."""
    mlp_ratio: int = 3
    """Hidden width of the transformer blocks' perceptrons, as a multiple of the last width."""

    def __post_init__(self) -> None:
        if len(self.widths) != 4:
            raise ValueError(f"widths {self.widths}: expected four, for strides 2, 4, 8 and 16")
        if self.widths[3] % self.attention_heads:
            raise ValueError(
                f"attention_heads {self.attention_heads} does not divide the width at stride 16, {self.widths[3]}"
            )


@dataclass(frozen=True, kw_only=True)
class TinyVitConfig:
    """Sizes of a `TinyVit`; the defaults are TinyViT-5M."""

    stride: ClassVar[int] = 16
    """Number of input pixels per cell of the embedding, along a side; both sides of the input are multiples of it."""
    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    """Numbers of channels of the four stages, at strides 4, 8, 16 and 16."""
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    """Number of blocks in each stage; the blocks of the first stage are convolutions."""
    heads: tuple[int, int, int] = (4, 5, 10)
    """Numbers of attention heads in the last three stages; each number divides the width of its stage."""
    window_sides: tuple[int, int, int] = (7, 14, 7)
    """Sides of the attention windows in the last three stages, in cells."""
    mlp_ratio: int = 4
    """Hidden width of the perceptrons and of the first stage's convolutions, as a multiple of the width."""

    def __post_init__(self) -> None:
        if (len(self.widths), len(self.depths), len(self.heads), len(self.window_sides)) != (4, 4, 3, 3):
            raise ValueError(f"{self}: expected four widths and depths, three numbers of heads and window sides")
        if min(*self.widths, *self.depths, *self.heads, *self.window_sides, self.mlp_ratio) < 1:
            raise ValueError(f"{self}: every size must be at least 1")
        if any(width % heads for width, heads in zip(self.widths[1:], self.heads, strict=True)):
            raise ValueError(f"heads {self.heads} do not divide the widths of the later stages, {self.widths[1:]}")


EncoderConfig: TypeAlias = VitConfig | HybridConfig | TinyVitConfig


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """Sizes of a whole network: image encoder, prompt encoder and mask decoder."""

    image_encoder: EncoderConfig
    """Sizes of the image encoder; the class of this object tells the kind of encoder."""
    input_side: int = 1024
    """Side of the square input, in pixels."""
    embedding_stride: int = 16
    """Number of input pixels per cell of the embedding, along a side; divides `input_side`."""
    width: int = 256
    """Number of channels of the embedding, the prompt tokens and the decoder."""
    mask_prompt_channels: int = 16
    """Number of channels inside the encoder of mask prompts."""
    decoder_depth: int = 2
    """Number of two-way blocks of the decoder."""
    decoder_heads: int = 8
    """Number of attention heads of the decoder; divides half of `width`."""
    decoder_mlp_width: int = 2048
    """Hidden width of the decoder's perceptrons."""
    iou_head_depth: int = 3
    """Number of layers of the head that predicts a mask's IoU."""
    iou_head_width: int = 256
    """Hidden width of the head that predicts a mask's IoU."""

    def __post_init__(self) -> None:
        sizes = [getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "image_encoder"]
        if min(sizes) < 1:
            raise ValueError(f"{self}: every size must be at least 1")
        if self.input_side % self.embedding_stride:
            raise ValueError(f"embedding_stride {self.embedding_stride} does not divide input_side {self.input_side}")
        if self.width % 8 or self.width % (2 * self.decoder_heads):
            raise ValueError(
                f"width {self.width}: expected a multiple of 8 and of twice the decoder's heads, {self.decoder_heads}"
            )
        if self.mask_prompt_channels % 4:
            raise ValueError(f"mask_prompt_channels {self.mask_prompt_channels}: expected a multiple of 4")
        if isinstance(self.image_encoder, HybridConfig):
            self._check_hybrid()
        if isinstance(self.image_encoder, TinyVitConfig) and self.embedding_stride != TinyVitConfig.stride:
            raise ValueError(
                f"the TinyViT encoder has stride {TinyVitConfig.stride}; got embedding_stride {self.embedding_stride}"
            )

    def _check_hybrid(self) -> None:
        if self.embedding_stride != HybridConfig.stride or self.input_side % HybridConfig.window_multiple:
            raise ValueError(
                f"the hybrid encoder has stride {HybridConfig.stride} and takes sides that are multiples of "
                f"{HybridConfig.window_multiple}; got embedding_stride {self.embedding_stride}, "
                f"input_side {self.input_side}"
            )

    @property
    def embedding_side(self) -> int:
        """Side of the square embedding grid, in cells (E)."""
        return self.input_side // self.embedding_stride

    @property
    def logits_side(self) -> int:
        """Side of the decoder's square low-resolution masks, in pixels (L = 4 E)."""
        return 4 * self.embedding_side

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with one key per field; the object of `image_encoder` has the key `kind` as well."""
        kind = next(name for name, cls in ENCODER_KINDS.items() if isinstance(self.image_encoder, cls))
        return dataclasses.asdict(self) | {"image_encoder": {"kind": kind} | dataclasses.asdict(self.image_encoder)}

    @classmethod
    def from_json(cls, data: Any) -> SamConfig:
        """Read a configuration from the JSON object that `to_json` returns.

        Raises:
            ValueError: A field is missing, unknown or of the wrong type, or the sizes contradict each other.
        """
        fields = _checked_object(cls, data, "config")
        encoder = fields["image_encoder"]
        kind = encoder.get("kind") if isinstance(encoder, dict) else None
        if kind not in ENCODER_KINDS:
            raise ValueError(f"config.image_encoder.kind: got {kind!r}, expected one of {sorted(ENCODER_KINDS)}")
        sizes = {name: value for name, value in encoder.items() if name != "kind"}
        return cls(
            **{name: _size(value, f"config.{name}") for name, value in fields.items() if name != "image_encoder"},
            image_encoder=_encoder_from_json(ENCODER_KINDS[kind], sizes),
        )


ENCODER_KINDS: dict[str, type[EncoderConfig]] = {"vit": VitConfig, "hybrid": HybridConfig, "tiny_vit": TinyVitConfig}
"""Classes of the image encoder's sizes, by the `kind` that a card names."""

VIT_B = SamConfig(image_encoder=VitConfig(width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)))
VIT_L = SamConfig(image_encoder=VitConfig(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)))
VIT_H = SamConfig(image_encoder=VitConfig(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)))
MOBILE = SamConfig(image_encoder=TinyVitConfig())


def _encoder_from_json(cls: type[EncoderConfig], data: dict[str, Any]) -> EncoderConfig:
    where = "config.image_encoder"
    tuples = {field.name for field in dataclasses.fields(cls) if "tuple" in str(field.type)}
    fields: dict[str, Any] = {
        name: _sizes(value, f"{where}.{name}") if name in tuples else _size(value, f"{where}.{name}")
        for name, value in _checked_object(cls, data, where).items()
    }
    return cls(**fields)


def _checked_object(cls: type, data: Any, where: str) -> dict[str, Any]:
    expected = {field.name for field in dataclasses.fields(cls)}
    if not isinstance(data, dict):
        raise ValueError(f"{where}: got {type(data).__name__}, expected an object with {sorted(expected)}")
    missing, unknown = sorted(expected - set(data)), sorted(set(data) - expected)
    if missing or unknown:
        raise ValueError(f"{where}: missing fields {missing}, unknown fields {unknown}")
    return data


def _size(value: Any, where: str) -> int:
    if type(value) is not int:
        raise ValueError(f"{where}: got {value!r}, expected a whole number")
    return value


def _sizes(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: got {value!r}, expected a list of whole numbers")
    return tuple(_size(item, where) for item in value)
