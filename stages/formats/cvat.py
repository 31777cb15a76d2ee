"""CVAT for images 1.1: one XML file, masks as run lengths row by row inside their box.

CVAT keeps no field of its importer's wish: a mask's id, stage and score stand as attributes, which the label declares.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import numpy as np

from stages.coco_source import to_rle
from stages.formats.exported import CATEGORY, Exported
from stages.formats.labels import LabelledMask, Labels, LeftOut, PhotoLabels, ReadMasks
from storage import rle
from storage.records import ImageRecord, MaskRecord
from storage.rle import Rle

ANNOTATIONS = "annotations.xml"
"""Name of the file that CVAT writes and reads."""
_ATTRIBUTES = ("gigamask_id", "stage", "predicted_iou")
_SHAPES = ("mask", "polygon")
_NOT_MASKS = ("box", "polyline", "points", "ellipse", "cuboid", "skeleton", "tag")


def read_cvat(path: Path) -> Labels:
    """Read the labels of an `annotations.xml`, or of the folder that holds one.

    Raises:
        ValueError: There is no such file, or it is no XML of CVAT for images 1.1.
    """
    file = path / ANNOTATIONS if path.is_dir() else path
    if file.suffix.lower() == ".zip":
        raise ValueError(f"{file}: got an archive; unpack it and give the folder with {ANNOTATIONS}")
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected the XML of CVAT for images 1.1")
    photos, left_out = list[PhotoLabels](), list[LeftOut]()
    try:
        for element in _top_elements(file):
            if element.tag == "image":
                photos.append(_photo(element))
            elif element.tag == "track":
                detail = "a track through a video; export the task as CVAT for images 1.1"
                left_out.append(LeftOut(what=f"track {element.get('id')}", reason="track", detail=detail))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise ValueError(f"{file}: {error}; expected the XML of CVAT for images 1.1") from error
    return Labels(
        form="cvat",
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        folder=file.parent,
        photos=tuple(photos),
        left_out=tuple(left_out),
    )


def _top_elements(file: Path) -> Iterator[ElementTree.Element]:
    """Parse the elements below `annotations`; only one at a time is in memory."""
    root: ElementTree.Element | None = None
    depth = 0
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if root is None:
            root = element
            if root.tag != "annotations":
                raise ValueError(f"got <{root.tag}> as the outermost element, not <annotations>")
        elif event == "end" and depth == 1:
            yield element
            root.clear()


def _photo(element: ElementTree.Element) -> PhotoLabels:
    fields = element.attrib
    shapes = [_Shape(element, place, each) for place, each in enumerate(element) if each.tag in _SHAPES + _NOT_MASKS]
    return PhotoLabels(
        name=fields["name"],
        size_hw=(int(fields["height"]), int(fields["width"])),
        num_masks=len(shapes),
        read=partial(_read, shapes),
    )


class _Shape:
    """What of one shape is kept until its photo is read."""

    def __init__(self, image: ElementTree.Element, place: int, shape: ElementTree.Element) -> None:
        self.what = f"image {image.get('id')}, {shape.tag} {place}"
        self.kind = shape.tag
        self.fields: Mapping[str, str] = dict(shape.attrib)


def _read(shapes: Sequence[_Shape], height: int, width: int) -> ReadMasks:
    masks, left_out = list[LabelledMask](), list[LeftOut]()
    for shape in shapes:
        if shape.kind not in _SHAPES:
            detail = f"a {shape.kind}; masks and polygons are taken"
            left_out.append(LeftOut(what=shape.what, reason="not_a_mask", detail=detail))
            continue
        try:
            read = _from_runs if shape.kind == "mask" else _from_polygon
            mask = read(shape.fields, height, width)
        except (ValueError, KeyError) as error:
            detail = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            left_out.append(LeftOut(what=shape.what, reason="malformed", detail=detail))
            continue
        masks.append(LabelledMask(what=shape.what, rle=mask, category=shape.fields.get("label", "")))
    return ReadMasks(masks=tuple(masks), left_out=tuple(left_out))


def _from_runs(fields: Mapping[str, str], height: int, width: int) -> Rle:
    left, top, box_width, box_height = (int(fields[name]) for name in ("left", "top", "width", "height"))
    runs = np.array([int(run) for run in fields["rle"].split(",")], np.int64)
    if min(left, top) < 0 or min(box_width, box_height) < 1 or left + box_width > width or top + box_height > height:
        raise ValueError(
            f"got a box of {box_width} x {box_height} px at ({left}, {top}), outside of {width} x {height} px"
        )
    if runs.min() < 0 or runs.sum() != box_width * box_height:
        raise ValueError(f"got runs of {runs.sum()} pixels, expected {box_width * box_height} for its box")
    mask_HW = np.zeros((height, width), np.bool_)
    inside = np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(box_height, box_width)
    mask_HW[top : top + box_height, left : left + box_width] = inside
    return rle.encode(mask_HW)


def _from_polygon(fields: Mapping[str, str], height: int, width: int) -> Rle:
    ring = [float(side) for point in fields["points"].split(";") for side in point.split(",")]
    return to_rle([ring], height, width, "polygon")


def write_cvat(folder: Path, exported: Exported) -> None:
    """Write `annotations.xml`."""
    with (folder / ANNOTATIONS).open("wb") as file:
        _Writer(file).write(exported)


class _Writer:
    """Writer of one XML file."""

    def __init__(self, file: BinaryIO) -> None:
        self._xml = XMLGenerator(file, "utf-8", short_empty_elements=False)

    def write(self, exported: Exported) -> None:
        self._xml.startDocument()
        self._start("annotations")
        self._text("version", "1.1")
        self._meta(exported)
        for number, sample in enumerate(exported.samples()):
            self._image(number, sample.image, sample.masks)
        self._xml.endElement("annotations")
        self._xml.endDocument()

    def _meta(self, exported: Exported) -> None:
        for name in ("meta", "task"):
            self._start(name)
        self._text("name", f"gigamask snapshot {exported.snapshot_id}")
        self._text("size", str(len(exported)))
        self._text("mode", "annotation")
        for name in ("labels", "label"):
            self._start(name)
        self._text("name", CATEGORY)
        self._text("type", "mask")
        self._start("attributes")
        for name in _ATTRIBUTES:
            self._start("attribute")
            for field, value in (("name", name), ("mutable", "False"), ("input_type", "text")):
                self._text(field, value)
            for field in ("default_value", "values"):
                self._text(field, "")
            self._xml.endElement("attribute")
        for name in ("attributes", "label", "labels", "task", "meta"):
            self._xml.endElement(name)

    def _image(self, number: int, image: ImageRecord, masks: Sequence[MaskRecord]) -> None:
        name = f"{image.key}.{image.format}"
        size = {"width": str(image.width), "height": str(image.height)}
        self._start("image", {"id": str(number), "name": name, **size})
        for mask in masks:
            self._start("mask", _mask_fields(mask))
            score = "" if math.isnan(mask.predicted_iou) else f"{mask.predicted_iou:.6g}"
            for attribute, value in zip(_ATTRIBUTES, (str(mask.mask_id), mask.provenance.stage, score), strict=True):
                self._text("attribute", value, {"name": attribute})
            self._xml.endElement("mask")
        self._xml.endElement("image")

    def _start(self, name: str, fields: Mapping[str, str] | None = None) -> None:
        self._xml.startElement(name, AttributesImpl(dict(fields or {})))

    def _text(self, name: str, text: str, fields: Mapping[str, str] | None = None) -> None:
        self._start(name, fields)
        self._xml.characters(text)
        self._xml.endElement(name)


def _mask_fields(mask: MaskRecord) -> dict[str, str]:
    x0, y0, x1, y1 = mask.box_xyxy
    pixels = rle.decode(mask.rle)[y0:y1, x0:x1].ravel()
    edges = np.concatenate(([0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, [pixels.size]))
    runs = np.diff(edges).tolist()
    runs = [0, *runs] if pixels[0] else runs
    assert sum(runs) == (x1 - x0) * (y1 - y0)  # CVAT does not check it
    box = {"left": str(x0), "top": str(y0), "width": str(x1 - x0), "height": str(y1 - y0)}
    fixed = {"label": CATEGORY, "source": "manual", "occluded": "0"}
    return {**fixed, "rle": ", ".join(map(str, runs)), **box, "z_order": "0"}
