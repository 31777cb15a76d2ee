"""Reader of a folder of tars in the form of SA-1B, written from SA-1B's public description and from standards alone.

It imports nothing of gigamask: the standard library and pycocotools. `python outside_reader.py FOLDER` checks a folder.

SA-1B: tars of `sa_<n>.jpg` and `sa_<n>.json`. A JSON file holds `image` with image_id, width, height and file_name, and
`annotations`, each with id, segmentation (COCO run lengths: size, counts), bbox (x, y, width, height), area,
predicted_iou, stability_score, crop_box (x, y, width, height) and point_coords.
"""

import hashlib
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

IMAGE_FIELDS = {"image_id", "width", "height", "file_name"}
ANNOTATION_FIELDS = {
    *("id", "segmentation", "bbox", "area"),
    *("predicted_iou", "stability_score", "crop_box", "point_coords"),
}
SHOWS_THE_PICTURE = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD} - {0xC8}


@dataclass(frozen=True)
class ReadImage:
    """One image of a tar, with its masks."""

    name: str
    jpeg: bytes
    document: dict[str, Any]

    def masks(self) -> list[Any]:
        """Decode the masks: uint8 [height, width] each."""
        return [coco_mask.decode(each["segmentation"]) for each in self.document["annotations"]]


def read_folder(folder: Path) -> Iterator[ReadImage]:
    """Read and check the images of all tars, in their order; an AssertionError tells what breaks the rules."""
    ids: set[int] = set()
    for path in sorted(folder.glob("sa_*.tar")):
        for image in read_tar(path):
            for annotation in image.document["annotations"]:
                assert annotation["id"] not in ids, f"{image.name}: id {annotation['id']} comes twice"
                ids.add(annotation["id"])
            yield image


def read_tar(path: Path) -> Iterator[ReadImage]:
    """Read and check the images of one tar."""
    with tarfile.open(path, "r:") as tar:
        members = tar.getmembers()
        assert len(members) % 2 == 0, f"{path}: {len(members)} members, expected pairs"
        for first, second in zip(members[::2], members[1::2], strict=True):
            name = first.name.removesuffix(".jpg")
            assert re.fullmatch(r"sa_[1-9][0-9]*", name), f"{path}: {first.name}"
            assert second.name == f"{name}.json", f"{path}: {second.name} behind {first.name}"
            image = ReadImage(name, _bytes(tar, first), json.loads(_bytes(tar, second)))
            check_document(image)
            check_jpeg(image)
            yield image


def check_document(image: ReadImage) -> None:
    """Check a JSON file against SA-1B's description, and its numbers against its masks."""
    assert set(image.document) == {"image", "annotations"}, image.name
    about = image.document["image"]
    assert set(about) == IMAGE_FIELDS, image.name
    assert about["file_name"] == f"{image.name}.jpg", image.name
    assert image.name == f"sa_{about['image_id']}", image.name
    for each in image.document["annotations"]:
        where = f"{image.name}, {each['id']}"
        assert set(each) == ANNOTATION_FIELDS, where
        assert set(each["segmentation"]) == {"size", "counts"}, where
        assert each["segmentation"]["size"] == [about["height"], about["width"]], where
        assert int(coco_mask.area(each["segmentation"])) == each["area"] > 0, where
        assert coco_mask.toBbox(each["segmentation"]).tolist() == each["bbox"], where
        assert all(isinstance(side, float) for side in (*each["bbox"], *each["crop_box"])), where
        for score in (each["predicted_iou"], each["stability_score"]):
            assert score is None or (isinstance(score, float) and 0 <= score <= 1.1), where
        assert all(len(point) == 2 for point in each["point_coords"]), where


def check_jpeg(image: ReadImage) -> None:
    """Check that a JPEG has its stated size and holds nothing but a picture and perhaps a colour profile."""
    data, position, size = image.jpeg, 2, None
    assert data[:2] == b"\xff\xd8", image.name
    while data[position : position + 2] != b"\xff\xd9":
        assert data[position] == 0xFF, f"{image.name}: no marker at {position}"
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        content = data[position + 4 : position + 2 + length]
        is_allowed = (
            marker in SHOWS_THE_PICTURE
            or (marker == 0xE0 and content[:5] == b"JFIF\0" and content[12:] == b"\0\0")
            or (marker == 0xE2 and content[:12] == b"ICC_PROFILE\0")
            or (marker == 0xEE and content[:5] == b"Adobe" and len(content) == 12)
        )
        assert is_allowed, f"{image.name}: a segment ff{marker:02x} with {content[:20]!r}"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = (int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big"))
        position += 2 + length
        if marker == 0xDA:
            while data[position] != 0xFF or data[position + 1] == 0 or 0xD0 <= data[position + 1] <= 0xD7:
                position += 1
    assert position + 2 == len(data), f"{image.name}: {len(data) - position - 2} bytes behind its end"
    about = image.document["image"]
    assert size == (about["height"], about["width"]), f"{image.name}: {size}"


def check_checksums(folder: Path) -> int:
    """Check the files of SHA256SUMS as `sha256sum --check` does; return their number."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    for line in lines:
        stated, _, path = line.partition("  ")
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == stated, path
    return len(lines)


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    assert member.isreg(), member.name
    assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", ""), member.name
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def main() -> None:
    """Check the folder that the command line names."""
    folder = Path(sys.argv[1])
    images = list(read_folder(folder))
    masks = sum(len(image.document["annotations"]) for image in images)
    print(f"{check_checksums(folder)} files, {len(images)} images, {masks} masks")


if __name__ == "__main__":
    main()
