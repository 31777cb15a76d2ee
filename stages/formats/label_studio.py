"""Label Studio: a JSON list of tasks, masks as brush run lengths, as bitmaps or as polygons."""

import base64
import binascii
import hashlib
import io
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL import Image

from stages.coco_source import to_rle
from stages.formats import brush
from stages.formats.exported import CATEGORY, Exported
from stages.formats.labels import LabelledMask, Labels, LeftOut, PhotoLabels, ReadMasks
from stages.training.snapshot_source import Sample
from storage import rle
from storage.rle import Rle

TASKS = "tasks.json"
CONFIG = "label_config.xml"
"""Names of the files that an export writes: the tasks, and the labelling interface that shows them."""
_CONFIG = f"""<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="tag" toName="image"><Label value="{CATEGORY}"/></BrushLabels>
</View>
"""
_LABELS = ("brushlabels", "bitmasklabels", "polygonlabels", "labels")
_PERCENT = 100.0


@dataclass(frozen=True, kw_only=True)
class _Region:
    """What the results of one annotation say of one region."""

    what: str
    """Name of the region, for people."""
    results: Sequence[Mapping[str, Any]]


def read_label_studio(path: Path) -> Labels:
    """Read the labels of a JSON export, or of the folder that holds a `tasks.json`.

    Raises:
        ValueError: The file cannot be read or is no list of tasks.
    """
    file = path / TASKS if path.is_dir() else path
    try:
        tasks = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; expected a JSON export of Label Studio") from error
    except ValueError as error:
        raise ValueError(f"{file}: got broken JSON ({error}); expected a JSON export of Label Studio") from error
    photos = list[PhotoLabels]()
    for place, task in enumerate(tasks if isinstance(tasks, list) else [None]):
        if not (isinstance(task, dict) and isinstance(task.get("data"), dict) and _holds_objects(task)):
            raise ValueError(
                f"{file}: task {place} has no data and annotations; expected Label Studio's export JSON, not JSON-MIN"
            )
        photos.append(_photo(task, f"task {task.get('id', place)}", file))
    return Labels(
        form="label-studio",
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        folder=file.parent,
        photos=tuple(photos),
    )


def _holds_objects(task: Mapping[str, Any]) -> bool:
    """Return whether the task has annotations, and they and their results are lists of objects, or null."""
    annotations = task.get("annotations", False)
    return _are_objects(annotations) and all(_are_objects(each.get("result")) for each in annotations or ())


def _are_objects(some: object) -> bool:
    return some is None or (isinstance(some, list) and all(isinstance(each, dict) for each in some))


def _photo(task: Mapping[str, Any], what: str, file: Path) -> PhotoLabels:
    regions = list[_Region]()
    left_out = list[LeftOut]()
    for annotation in task["annotations"] or ():
        here = f"{what}, annotation {annotation.get('id', '')}".rstrip()
        own = _group(annotation.get("result") or (), here)
        if annotation.get("was_cancelled"):
            left_out.append(LeftOut(what=here, reason="skipped", detail="it was skipped", masks=len(own)))
        else:
            regions += own
    predictions = task.get("predictions")
    if isinstance(predictions, list) and predictions:
        detail = "predictions are not taken; accept them as annotations in Label Studio"
        results = [each.get("result") if isinstance(each, dict) else None for each in predictions]  # some are ids
        number = sum(len(_group(some, "")) if some and _are_objects(some) else 0 for some in results)
        left_out.append(LeftOut(what=f"{what}, predictions", reason="prediction", detail=detail, masks=number))
    sizes = {
        (each["original_height"], each["original_width"])
        for region in regions
        for each in region.results
        if isinstance(each.get("original_height"), int) and isinstance(each.get("original_width"), int)
    }
    if len(sizes) > 1:
        raise ValueError(f"{file}: {what} has regions of {len(sizes)} image sizes, expected one")
    return PhotoLabels(
        name=_name(task["data"], what, file),
        size_hw=next(iter(sizes), None),
        num_masks=len(regions) + sum(each.masks for each in left_out),
        read=partial(_read, regions, left_out),
    )


def _group(results: Sequence[Mapping[str, Any]], here: str) -> list[_Region]:
    """Gather the results of each region: it has one for each of its tags, such as a brush, its labels and its text."""
    by_id = defaultdict[str, list[Mapping[str, Any]]](list)
    for place, result in enumerate(results):
        by_id[str(result.get("id") or f"at place {place}")].append(result)
    return [_Region(what=f"{here}, region {name}", results=some) for name, some in by_id.items()]


def _name(data: Mapping[str, Any], what: str, file: Path) -> str:
    """Return the path of a task's image, whether it is a path, an address or a file of Label Studio's local storage."""
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get("image", texts[0] if len(texts) == 1 else None)
    if not isinstance(address, str):
        raise ValueError(f"{file}: {what} has no field 'image' in its data, expected the address of its image")
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return (local[0] if local else unquote(parts.path)).lstrip("/")


def _read(regions: Sequence[_Region], left_out: Sequence[LeftOut], height: int, width: int) -> ReadMasks:
    masks, others = list[LabelledMask](), list(left_out)
    for region in regions:
        found = _first_mask(region, height, width)
        if isinstance(found, LeftOut):
            others.append(found)
        else:
            category = next(filter(None, map(_category, region.results)), "")
            masks.append(LabelledMask(what=region.what, rle=found, category=category))
    return ReadMasks(masks=tuple(masks), left_out=tuple(others))


def _first_mask(region: _Region, height: int, width: int) -> Rle | LeftOut:
    """Return the first mask among the results of a region, else why it has none."""
    malformed = ""
    for result in region.results:
        try:
            mask = _mask(result, height, width)
        except (ValueError, KeyError, TypeError, OSError) as error:
            malformed = malformed or (f"field {error} is missing" if isinstance(error, KeyError) else str(error))
            continue
        if mask is not None:
            return mask
    if malformed:
        return LeftOut(what=region.what, reason="malformed", detail=malformed)
    detail = f"a region of type {region.results[0].get('type')}; brushes, bitmasks and polygons are taken"
    return LeftOut(what=region.what, reason="not_a_mask", detail=detail)


def _mask(result: Mapping[str, Any], height: int, width: int) -> Rle | None:
    """Return the mask of a result; None for one of another kind.

    Raises:
        ValueError: The mask cannot be read, or the image is shown rotated.
    """
    value = result.get("value")
    if not isinstance(value, dict):
        return None
    if result.get("image_rotation"):
        raise ValueError(f"the image is rotated by {result['image_rotation']} degrees; turn it back in Label Studio")
    if value.get("format") == "rle" and "rle" in value:
        return rle.encode(brush.decode(value["rle"], height, width))
    if "imageDataURL" in value:
        return rle.encode(_from_bitmap(str(value["imageDataURL"]), height, width))
    if isinstance(value.get("points"), list):
        ring = [float(side) * scale / _PERCENT for x, y in value["points"] for side, scale in ((x, width), (y, height))]
        return to_rle([ring], height, width, "polygon")
    return None


def _from_bitmap(address: str, height: int, width: int) -> np.ndarray:
    """Read a bitmap out of its data address: the pixels that are at least half opaque."""
    head, _, data = address.partition(",")
    if not head.startswith("data:image/png") or not head.endswith(";base64"):
        raise ValueError(f"bitmask: got {head[:40]!r}, expected data:image/png;base64")
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG"]) as bitmap:
            if bitmap.size != (width, height):
                raise ValueError(f"bitmask: got {bitmap.width} x {bitmap.height} px, expected {width} x {height}")
            alpha: np.ndarray = np.asarray(bitmap.convert("RGBA"))[..., 3] >= brush.OPAQUE
            return alpha
    except binascii.Error as error:
        raise ValueError(f"bitmask: {error}") from error


def _category(result: Mapping[str, Any]) -> str:
    value = result["value"] if isinstance(result.get("value"), dict) else {}
    names: list[Any] = next((value[name] for name in _LABELS if isinstance(value.get(name), list)), [])
    return ", ".join(map(str, names))


def write_label_studio(folder: Path, exported: Exported) -> None:
    """Write `tasks.json`, with an annotation for each image, and the labelling interface that shows it."""
    (folder / CONFIG).write_text(_CONFIG)
    with (folder / TASKS).open("w", encoding="utf-8") as file:
        before = "["
        for sample in exported.samples():
            file.write(f"{before}\n{json.dumps(_task(sample), separators=(',', ':'))}")
            before = ","
        file.write("\n]\n")


def _task(sample: Sample) -> dict[str, Any]:
    image = sample.image
    same = {
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
    }
    regions = [
        {
            "id": f"{mask.mask_id:016x}",
            **same,
            "value": {"format": "rle", "rle": brush.encode(rle.decode(mask.rle)), "brushlabels": [CATEGORY]},
            **({} if math.isnan(mask.predicted_iou) else {"score": mask.predicted_iou}),
        }
        for mask in sample.masks
    ]
    address = f"/data/local-files/?d=images/{image.key}.{image.format}"
    return {"data": {"image": address}, "annotations": [{"result": regions}]}
