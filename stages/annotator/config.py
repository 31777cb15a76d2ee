"""Settings of the annotation server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SessionsConfig:
    """Settings of the part that turns clicks into masks."""

    cache_bytes: int = 20_000_000_000
    """Largest size of the embedding cache on disk, in bytes; the files used least recently are removed."""
    cache_memory_bytes: int = 256_000_000
    """Largest size of the embeddings kept in memory, in bytes."""
    prediction_bytes: int = 128_000_000
    """Largest size of the logits kept for the next click, in bytes; those used least recently are dropped."""
    image_bytes: int = 256_000_000
    """Largest size of the images kept in memory, encoded and decoded together, in bytes."""
    decode_threads: int = 2
    """Number of threads that decode prompts; each batch is decoded by one of them."""
    max_batch: int = 16
    """Largest number of prompts decoded together."""
    max_wait_ms: float = 0.0
    """Longest time that a prompt waits for others to join its batch, in milliseconds; those that wait already join it
    anyway."""
    max_waiting: int = 64
    """Largest number of prompts that wait to be decoded; further ones are refused as busy."""
    max_preparing: int = 256
    """Largest number of images that wait to be encoded ahead of their task."""
    torch_threads: int = 1
    """Number of threads that each decode uses; more than one pays only where cores are idle."""

    follow_every_s: float = 15.0
    """Time between two looks at which model is promoted, in seconds."""

    def __post_init__(self) -> None:
        counts = ("decode_threads", "max_batch", "max_waiting", "max_preparing", "torch_threads")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        for name in (
            "cache_bytes",
            "cache_memory_bytes",
            "prediction_bytes",
            "image_bytes",
            "max_wait_ms",
            "follow_every_s",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 0")
