"""Hostile photos: files that lie, explode, loop or end too soon, of every format that ingest looks at.

Each kind is a function of a random generator; `hostile_photos` takes them in turn, so that every kind occurs as often.
`mutated_photos` damages good files of many forms. The same seed makes the same bytes.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from random import Random

import numpy as np
from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_FOREIGN = (
    b"\0\0\0\x18ftypheic\0\0\0\0heicmif1",
    b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    b"8BPS\0\x01\0\0\0\0\0\0\0\x03\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\0\0\0\x0cJXL \r\n\x87\n",
    b"\0\0\x01\0\x01\0\0\0\0\0",
    b"<svg xmlns='http://www.w3.org/2000/svg' width='1e9' height='1e9'/>",
    b"P6 1000000 1000000 255\n",
    b"",
    b"\xff\xd8\xff",
    b"%PDF-1.7\n",
)


def hostile_photos(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Make files, each with a name that says of what kind it is."""
    random = Random(seed)
    giants = iter(giant_photos())
    for number in range(count):
        giant = next(giants, None) if number % 40 == 39 else None
        if giant is not None:
            yield f"{number:05}-{giant[0]}", giant[1]
        else:
            kind, make = KINDS[number % len(KINDS)]
            yield f"{number:05}-{kind}", make(random)


def giant_photos() -> Iterator[tuple[str, bytes]]:
    """Make the largest files within the limit of pixels, and one beyond it; few, since each takes seconds to read."""
    for side, colour in ((13377, 6), (13377, 4), (13377, 3), (14000, 2)):
        yield f"giant-{colour}.png", png(side, side, colour=colour)
    yield "giant-16.png", png(12000, 12000, colour=0, bits=16)
    yield "giant.tif", tiff(13000, 13000, pixels=zlib.compress(bytes(13000 * 13000), 1), compression=8)
    buffer = io.BytesIO()
    Image.new("RGB", (13000, 13000)).save(buffer, "JPEG", quality=10)
    yield "giant.jpg", buffer.getvalue()
    buffer = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(buffer, "JPEG", quality=10, progressive=True)
    yield "giant-progressive.jpg", buffer.getvalue()


def mutated_photos(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Make damaged copies of good files."""
    random = Random(seed)
    good = good_photos()
    for number in range(count):
        name, data = good[number % len(good)]
        yield f"{number:05}-{name}", mutated(data, random)


@cache
def good_photos() -> list[tuple[str, bytes]]:
    """Make small files of every form that is taken, and of some that are not."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    colour = Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)
    deep = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 200)
    exif = Image.Exif()
    exif[274], exif[271], exif[306] = 6, "Maker", "2026:11:28 00:00:00"
    forms: list[tuple[str, Image.Image, str, dict[str, object]]] = [
        ("plain.jpg", colour, "JPEG", {"exif": exif, "icc_profile": bytes(400)}),
        ("progressive.jpg", colour, "JPEG", {"progressive": True, "comment": b"a comment"}),
        ("cmyk.jpg", colour.convert("CMYK"), "JPEG", {}),
        ("grey.jpg", colour.convert("L"), "JPEG", {"restart_marker_blocks": 4}),
        ("plain.png", colour, "PNG", {"exif": exif}),
        ("alpha.png", colour.convert("RGBA"), "PNG", {}),
        ("grey-alpha.png", colour.convert("LA"), "PNG", {}),
        ("palette.png", colour.convert("P"), "PNG", {"transparency": 3}),
        ("deep.png", deep, "PNG", {}),
        ("bit.png", colour.convert("1"), "PNG", {}),
        ("animated.png", colour, "PNG", {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}),
        ("plain.webp", colour, "WEBP", {"exif": exif}),
        ("lossless.webp", colour.convert("RGBA"), "WEBP", {"lossless": True}),
        ("animated.webp", colour, "WEBP", {"save_all": True, "append_images": [colour.rotate(90)]}),
        ("plain.tif", colour, "TIFF", {"exif": exif}),
        ("lzw.tif", colour, "TIFF", {"compression": "tiff_lzw"}),
        ("deflate.tif", colour.convert("RGBA"), "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tif", colour, "TIFF", {"compression": "jpeg"}),
        ("fax.tif", colour.convert("1"), "TIFF", {"compression": "group4"}),
        ("packbits.tif", colour.convert("P"), "TIFF", {"compression": "packbits"}),
        ("deep.tif", deep, "TIFF", {}),
        ("float.tif", colour.convert("F"), "TIFF", {}),
        ("pages.tif", colour, "TIFF", {"save_all": True, "append_images": [colour.rotate(90)]}),
        ("big.tif", colour, "TIFF", {"big_tiff": True}),
        ("plain.gif", colour.convert("P"), "GIF", {}),
        ("plain.bmp", colour, "BMP", {}),
    ]
    return [(name, _saved(image, kind, **options)) for name, image, kind, options in forms]


def mutated(data: bytes, random: Random) -> bytes:
    """Change, cut, double or move bytes of a file; half of the changes hit its first 200 bytes."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        at = random.randrange(min(len(changed), 200) if random.random() < 0.5 else len(changed))
        what = random.randrange(6)
        if what < 2:
            changed[at] = random.randrange(256)
        elif what == 2:
            changed[at : at + 4] = random.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01"))
        elif what == 3:
            del changed[at : at + random.choice((1, 2, 7, 400))]
        elif what == 4:
            changed[at:at] = changed[at : at + random.choice((1, 12, 300))]
        else:
            source = random.randrange(len(changed))
            changed[at : at + 8] = changed[source : source + 8]
        changed = changed or bytearray(b"\0")
    if random.random() < 0.1:
        del changed[random.randrange(len(changed)) :]
    return bytes(changed)


def png(
    width: int,
    height: int,
    *,
    colour: int = 2,
    bits: int = 8,
    interlaced: int = 0,
    rows: int | None = None,
    before: bytes = b"",
) -> bytes:
    """Make a PNG of zeros; `rows` of its own number, and chunks before the pixels, if wanted."""
    line = bytes(1 + -(-min(width, 2**15) * _CHANNELS.get(colour, 1) * bits // 8))
    packer, packed = zlib.compressobj(1), []
    block, left = line * max(1, 2**20 // len(line)), len(line) * (height if rows is None else rows)
    while left > 0:
        packed.append(packer.compress(block[:left]))
        left -= len(block)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(3)) if colour == 3 else b""
    pixels = chunk(b"IDAT", b"".join([*packed, packer.flush()]))
    return _PNG + chunk(b"IHDR", header) + palette + before + pixels + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(
    width: int,
    height: int,
    *,
    pixels: bytes = bytes(400),
    compression: int = 1,
    bits: int = 8,
    directories: int = 1,
    loops_to: int | None = None,
    others: tuple[tuple[int, int, int, int], ...] = (),
) -> bytes:
    """Make a grey TIFF of one strip whose directory is repeated; the last one leads to the number `loops_to`."""
    entries = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, bits),
        259: (3, 1, compression),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, len(pixels)),
    }
    entries |= {tag: (kind, count, value) for tag, kind, count, value in others}
    size, begin = 2 + 12 * len(entries) + 4, 8 + len(pixels) + len(pixels) % 2
    body = struct.pack("<H", len(entries))
    for tag in sorted(entries):
        kind, count, value = entries[tag]
        body += struct.pack("<HHII", tag, kind, count & 0xFFFFFFFF, value & 0xFFFFFFFF)
    nexts = [begin + size * (number + 1) for number in range(directories - 1)]
    nexts.append(0 if loops_to is None else begin + size * loops_to)
    head = struct.pack("<2sHI", b"II", 42, begin) + pixels + bytes(len(pixels) % 2)
    return head + b"".join(body + struct.pack("<I", following) for following in nexts)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _small(random: Random, kind: str, **options: object) -> bytes:
    pixels = np.frombuffer(random.randbytes(40 * 60 * 3), np.uint8).reshape(40, 60, 3)
    return _saved(Image.fromarray(pixels), kind, **options)


def _bomb_png(random: Random) -> bytes:
    side = int(2 ** random.uniform(9, 12.3))
    return png(side, side + random.randrange(9), colour=random.choice((0, 2, 3, 4, 6)), interlaced=random.randrange(2))


def _lying_png(random: Random) -> bytes:
    width, height = (random.choice((0, 1, 64, 300, 5000, 2**31 - 1, 2**32 - 1)) for _ in range(2))
    bits, colour = random.choice((0, 1, 8, 16, 255)), random.choice((0, 1, 2, 3, 4, 6, 9))
    return png(width, height, bits=bits, colour=colour, rows=random.randrange(40))


def _noted_png(random: Random) -> bytes:
    packed = zlib.compress(bytes(random.choice((10**5, 10**6, 7 * 10**7))), 9)
    notes = (
        chunk(b"zTXt", b"Comment\0\0" + packed),
        chunk(b"iCCP", b"profile\0\0" + packed),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed),
        chunk(b"eXIf", tiff(9, 9, loops_to=0, others=((34665, 4, 1, random.randrange(400)),))),
        chunk(b"tEXt", b"a\0" + bytes(10**6)) * random.randrange(1, 4),
        chunk(b"tIME", b"x") * 20_000,
        chunk(b"acTL", struct.pack(">II", random.choice((0, 2, 2**31 - 1, 2**32 - 1)), 0)),
        struct.pack(">I", random.choice((2**31 - 1, 2**32 - 1, 10**9))) + b"tEXt",
        chunk(b"tRNS", random.randbytes(random.choice((0, 1, 6, 300)))),
    )
    return png(80, 60 + random.randrange(9), before=random.choice(notes) + chunk(b"tEXt", random.randbytes(8)))


def _animated_png(random: Random) -> bytes:
    data = bytearray(dict(good_photos())["animated.png"])
    at = data.index(b"acTL") + 4
    data[at : at + 4] = struct.pack(">I", random.choice((0, 1, 2, 10**6, 2**32 - 1)))
    data[at + 8 : at + 12] = struct.pack(">I", zlib.crc32(data[at - 4 : at + 8]))
    return mutated(bytes(data), random) if random.random() < 0.5 else bytes(data) + random.randbytes(4)


def _lying_jpeg(random: Random) -> bytes:
    data = bytearray(_small(random, "JPEG", progressive=random.random() < 0.3))
    at = data.index(b"\xff\xc2" if b"\xff\xc2" in data else b"\xff\xc0")
    sides = (0, 1, 60, 4000, 13000, 65535)
    data[at + 5 : at + 9] = struct.pack(">HH", random.choice(sides), random.choice(sides))
    if random.random() < 0.3:
        data[at + random.choice((1, 4, 9, 11, 14))] = random.randrange(256)
    return bytes(data)


def _noted_jpeg(random: Random) -> bytes:
    data = _small(random, "JPEG")
    loop = tiff(9, 9, loops_to=0, others=((34665, 4, 1, 8), (34853, 4, 1, 8), (274, 3, 1, random.randrange(12))))
    deep = b"Exif\0\0" + random.choice((loop, random.randbytes(600), tiff(9, 9, directories=300)))
    notes = (
        b"\xff\xe1" + struct.pack(">H", len(deep) + 2) + deep,
        (b"\xff\xe2\xff\xff" + bytes(65533)) * random.randrange(1, 60),
        b"\xff\xe2" + struct.pack(">H", 22) + b"ICC_PROFILE\0\xff\xff" + bytes(6),
        b"\xff\xfe\0\2" * 50_000,
        b"\xff\xdd\0\4" + random.randbytes(2),
        b"\xff" * random.randrange(1, 10**5) + b"\xfe\0\2",
        b"\xff\xe2" + struct.pack(">H", 90) + b"MPF\0II*\0\x08\0\0\0" + random.randbytes(76),
    )
    return data[:2] + random.choice(notes) + data[2:]


def _scanned_jpeg(random: Random) -> bytes:
    data = _saved(Image.new("L", (2000, 2000 + random.randrange(64))), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * random.randrange(2, 60) + data[-2:]


def _paged_tiff(random: Random) -> bytes:
    directories = random.choice((2, 50, 101, 5000, 80_000))
    loops_to = random.choice((None, 0, directories - 1))
    reduced = ((254, 4, 1, random.randrange(2)),)
    return tiff(40 + random.randrange(99), 10, directories=directories, loops_to=loops_to, others=reduced)


def _lying_tiff(random: Random) -> bytes:
    sides = (0, 1, 64, 200, 13000, 2**31 - 1, 2**32 - 1)
    tags = (258, 259, 262, 273, 274, 277, 278, 279, 281, 284, 317, 320, 322, 323, 324, 325, 338, 339, 700, 34675)
    values = (0, 1, 2, 3, 5, 7, 8, 16, 32, 255, 65535, 2**31, 2**32 - 1, 32773, 50001)
    lies = [(random.choice(tags), random.randrange(14), random.choice((0, 1, 2, 10**6, 2**32 - 1)))]
    others = tuple((tag, kind, count, random.choice(values)) for tag, kind, count in lies * random.randrange(1, 3))
    pixels = random.choice((bytes(400), random.randbytes(5000), zlib.compress(bytes(10**7), 9)))
    compression = random.choice((1, 1, 2, 3, 4, 5, 6, 7, 8, 32773, 34712, 34925, 50000, 50001))
    width, height = random.choice(sides), random.choice(sides)
    return tiff(width, height, pixels=pixels, compression=compression, bits=random.choice((1, 8, 16)), others=others)


def _bomb_tiff(random: Random) -> bytes:
    width, height = 2000 + random.randrange(3000), 2000
    return tiff(width, height, pixels=zlib.compress(bytes(width * height), 9), compression=8)


def _lying_webp(random: Random) -> bytes:
    flags, canvas = random.randrange(256), random.choice((0, 63, 5000, 2**24 - 1)).to_bytes(3, "little")
    frame = b"ANMF" + struct.pack("<I", random.choice((16, 2**31, 2**32 - 1))) + random.randbytes(16)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes((flags, 0, 0, 0)) + canvas * 2
    body += random.choice((b"", b"ANIM\6\0\0\0" + bytes(6) + frame * random.randrange(1, 2000)))
    body += random.choice((b"", _small(random, "WEBP")[12:], b"EXIF" + struct.pack("<I", 2**32 - 2)))
    return b"RIFF" + struct.pack("<I", random.choice((len(body), 0, 2**32 - 1))) + body


def _bomb_webp(random: Random) -> bytes:
    side = 1000 + random.randrange(2000)
    image = Image.new(random.choice(("RGB", "RGBA")), (side, side), random.randrange(2**24))
    return _saved(image, "WEBP", lossless=True, quality=0, method=0)


def _hostile_gif(random: Random) -> bytes:
    side = random.choice((0, 1, 300, 65535))
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    frame = b"\x21\xf9\4\0\0\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\2\2\x44\1\0"
    return head + frame * random.choice((1, 2, 1000, 30_000)) + random.choice((b";", b"")) + random.randbytes(3)


def _hostile_bmp(random: Random) -> bytes:
    size = random.choice((0, 40, 2**31 - 1, 2**32 - 1))
    return b"BM" + struct.pack("<IIIIiiHHI", size, 0, 54, 40, 2**30, -(2**30), 1, 32, 3) + random.randbytes(80)


def _foreign(random: Random) -> bytes:
    return random.choice(_FOREIGN) + random.randbytes(random.choice((0, 40, 5000)))


def _cut(random: Random) -> bytes:
    data = random.choice(good_photos())[1]
    return data[: random.randrange(len(data))]


def _mutated(random: Random) -> bytes:
    return mutated(random.choice(good_photos())[1], random)


def _good(random: Random) -> bytes:
    return _small(random, random.choice(("JPEG", "PNG", "WEBP", "TIFF")))


KINDS: list[tuple[str, Callable[[Random], bytes]]] = [
    ("bomb.png", _bomb_png),
    ("lying.png", _lying_png),
    ("noted.png", _noted_png),
    ("animated.png", _animated_png),
    ("lying.jpg", _lying_jpeg),
    ("noted.jpg", _noted_jpeg),
    ("scanned.jpg", _scanned_jpeg),
    ("paged.tif", _paged_tiff),
    ("lying.tif", _lying_tiff),
    ("bomb.tif", _bomb_tiff),
    ("lying.webp", _lying_webp),
    ("bomb.webp", _bomb_webp),
    ("screen.gif", _hostile_gif),
    ("header.bmp", _hostile_bmp),
    ("foreign.jpg", _foreign),
    ("cut.tif", _cut),
    ("mutated.png", _mutated),
    ("good.jpg", _good),
]
