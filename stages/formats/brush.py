"""Label Studio's brush run lengths: a stream of bits over the RGBA bytes of the whole image, row by row.

After a header (number of bytes in 32 bits; word size less one in 5; four length sizes less one in 4 bits each) come
blocks: one bit for the kind (1 a run, 0 a list), two for the length size, the length less one, then one word for a run
or all words for a list. The last byte is filled up with zeros; further bytes mean nothing.
"""

from collections.abc import Sequence

import numpy as np

_HEADER_BITS = 32 + 5 + 4 * 4
_WORD_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
"""Sizes of a length, as Label Studio writes them."""
_LONGEST = 2 ** _LENGTH_BITS[-1]
OPAQUE = 128
"""Least alpha of a pixel of a mask; the edges of a brush are half transparent."""


def encode(mask_HW: np.ndarray) -> list[int]:
    """Encode a mask, bool [H, W]; foreground is 255 in all four channels, because the editor looks at alpha alone."""
    pixels = np.asarray(mask_HW, np.bool_).ravel()
    edges = np.concatenate(([0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, [pixels.size]))
    lengths, values = 4 * np.diff(edges), pixels[edges[:-1]]
    pieces = -(-lengths // _LONGEST)
    values = np.repeat(values, pieces)
    last = np.cumsum(pieces) - 1
    rest = np.full(values.size, _LONGEST, np.int64)
    rest[last] = lengths - _LONGEST * (pieces - 1)

    # Each block is one number of at most 27 bits; all bits then go into one row
    size = np.searchsorted(2 ** np.array(_LENGTH_BITS), rest)
    length_bits = np.array(_LENGTH_BITS)[size]
    block = (((4 + size) << length_bits | (rest - 1)) << _WORD_BITS) | np.where(values, 255, 0)
    block_bits = 3 + length_bits + _WORD_BITS
    header = pixels.size * 4
    for number, bits in ((_WORD_BITS - 1, 5), *((bits - 1, 4) for bits in _LENGTH_BITS)):
        header = header << bits | number
    head = [header >> place & 1 for place in reversed(range(_HEADER_BITS))]
    ends = np.cumsum(block_bits)
    place = np.repeat(ends, block_bits) - 1 - np.arange(ends[-1])
    bits = (np.repeat(block, block_bits) >> place) & 1
    packed: list[int] = np.packbits(np.concatenate((head, bits)).astype(np.uint8)).tolist()
    return packed


def decode(numbers: Sequence[int], height: int, width: int) -> np.ndarray:
    """Decode a mask of the given size, bool [H, W]: the pixels that are at least half opaque.

    Raises:
        ValueError: The numbers are no such stream, or are of another size.
    """
    data = np.asarray(numbers)
    if data.ndim != 1 or data.dtype.kind not in "iu" or data.size < 7 or data.min() < 0 or data.max() > 255:
        raise ValueError("brush: got no list of bytes, expected Label Studio's run lengths")
    reader = _Bits(data.astype(np.uint8).tobytes())
    total = reader.take(32)
    if total != 4 * height * width:
        raise ValueError(f"brush: got {total} values, expected {4 * height * width} for {width} x {height} px in RGBA")
    word_bits = reader.take(5) + 1
    if word_bits != _WORD_BITS:
        raise ValueError(f"brush: got words of {word_bits} bits, expected {_WORD_BITS}")
    sizes = [reader.take(4) + 1 for _ in range(4)]
    values = np.empty(total, np.uint8)
    done = 0
    while done < total:
        is_run, size = reader.take(1), sizes[reader.take(2)]
        length = reader.take(size) + 1
        if done + length > total:
            raise ValueError(f"brush: got more than the {total} values that its header states")
        values[done : done + length] = reader.take(_WORD_BITS) if is_run else reader.take_bytes(length)
        done += length
    return values.reshape(height, width, 4)[..., 3] >= OPAQUE


class _Bits:
    """Reader of a stream of bits, the most significant of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def take(self, bits: int) -> int:
        first, last = self._place >> 3, self._place + bits + 7 >> 3
        if last > len(self._data):
            raise ValueError("brush: the run lengths stop in the middle")
        self._place += bits
        number = int.from_bytes(self._data[first:last], "big") >> (8 * last - self._place)
        return number & (1 << bits) - 1

    def take_bytes(self, count: int) -> np.ndarray:
        first, shift = self._place >> 3, self._place & 7
        last = self._place + 8 * count + 7 >> 3
        if last > len(self._data):
            raise ValueError("brush: the run lengths stop in the middle")
        self._place += 8 * count
        window = np.frombuffer(self._data[first:last] + b"\0", np.uint8).astype(np.uint16)
        words: np.ndarray = ((window[:count] << shift | window[1 : count + 1] >> (8 - shift)) & 255).astype(np.uint8)
        return words
