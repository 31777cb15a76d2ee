"""The page that people read first: README.md, with the front matter of a Hugging Face dataset card.

Features are given, so that readers do not infer them from the first images: an image without a scored mask would give
another type.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stages.release import rows
from stages.release.documents import licenses, words
from stages.release.folder import File

_CONFIG = "default"
"""Name of the one configuration. Tables as a second one do not load: `datasets` reads a folder by one kind of file."""
_SPLIT = "full"
"""Name of the one split; which images are held out says the column `split` of the tables."""
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_FLOATS: dict[str, Any] = {"list": "float64"}
_ANNOTATION: dict[str, Any] = {
    "id": "int64",
    "segmentation": {"struct": [{"name": "size", "list": "int64"}, {"name": "counts", "dtype": "string"}]},
    "bbox": _FLOATS,
    "area": "int64",
    "predicted_iou": "float64",
    "stability_score": "float64",
    "crop_box": _FLOATS,
    "point_coords": {"list": _FLOATS},
}


def make_card(manifest: Mapping[str, Any], files: Sequence[File]) -> str:
    """Make the page from the manifest and from the tars and tables."""
    front = _front_matter(manifest, files).items()
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in front]  # JSON is YAML
    return f"---\n{''.join(lines)}---\n\n{_text(manifest)}"


def _front_matter(manifest: Mapping[str, Any], files: Sequence[File]) -> dict[str, Any]:
    stages = manifest["counts"]["stages"]
    creators = ["machine-generated"] if "fully_automatic" in stages else []
    creators += ["other"] if set(stages) - {"fully_automatic"} else []
    return {
        "pretty_name": manifest["settings"]["title"],
        **_license(manifest),
        "annotations_creators": creators,
        "source_datasets": ["original"],
        "task_categories": ["image-segmentation", "mask-generation"],
        "size_categories": [next((name for limit, name in _SIZES if manifest["images"] < limit), "n>10M")],
        "tags": ["segmentation", "masks", "sa-1b"],
        "configs": [{"config_name": _CONFIG, "data_files": [{"split": _SPLIT, "path": "*.tar"}]}],
        "dataset_info": [_info(manifest["images"], sum(file.nbytes for file in files if file.path.endswith(".tar")))],
    }


def _license(manifest: Mapping[str, Any]) -> dict[str, Any]:
    given = [name.lower() for name in licenses.names(manifest)]
    all_known = given and len(given) == len(manifest["counts"]["licenses"]) and set(given) <= licenses.HUGGING_FACE
    if all_known:
        return {"license": given if len(given) > 1 else given[0]}
    return {"license": "other", "license_name": "by-image", "license_link": "LICENSES.md"}


def _info(images: int, nbytes: int) -> dict[str, Any]:
    return {
        "config_name": _CONFIG,
        "features": _image_features(),
        "splits": [{"name": _SPLIT, "num_bytes": nbytes, "num_examples": images}],
        "download_size": nbytes,
        "dataset_size": nbytes,
    }


def _image_features() -> list[dict[str, Any]]:
    image = {"image_id": "int64", "width": "int64", "height": "int64", "file_name": "string"}
    document = [
        {"name": "image", "struct": _struct(image)},
        {"name": "annotations", "list": _struct(_ANNOTATION)},
    ]
    return [
        {"name": "jpg", "dtype": "image"},
        {"name": "json", "struct": document},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _struct(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, **(kind if isinstance(kind, dict) else {"dtype": kind})} for name, kind in fields.items()]


def _text(manifest: Mapping[str, Any]) -> str:
    settings, counts = manifest["settings"], manifest["counts"]
    columns = "\n".join(f"| {field.name} | {rows.NOTES[field.name]} |" for field in rows.MASKS)
    left_out = "\n".join(f"- {line}" for line in words.left_out(manifest))
    coco = "- `coco.json`: all masks as one COCO file\n" if settings["with_coco"] else ""
    return f"""# {settings["title"]}

{manifest["images"]:,} images with {manifest["masks"]:,} segmentation masks, in the form of
[SA-1B](https://ai.meta.com/datasets/segment-anything/), made by gigamask {manifest["made_with"]["gigamask"]}.

## People in the images

{words.deidentification(manifest)} {words.contact(manifest)}

## Files

- `sa_*.tar`: `sa_<n>.jpg` and `sa_<n>.json` for each image
- `masks/*.parquet`, `images/*.parquet`: a row for each mask and for each image
{coco}- `holdout.txt`: the images that are held out; {counts["splits"].get("holdout", 0):,} of {manifest["images"]:,}
- `LICENSES.md`, `ATTRIBUTIONS.csv`: licence and source of every image
- `DATASHEET.md`, `croissant.json`: how it came about, for people and for programs
- `viewer.html`: some of the images with their masks, for a browser; it needs no server
- `SHA256SUMS`, `release.json`: checksums, settings and counts

```python
import json, tarfile
from pycocotools import mask

with tarfile.open("sa_000000.tar") as tar:
    document = json.load(tar.extractfile("sa_1.json"))
for annotation in document["annotations"]:
    pixels = mask.decode(annotation["segmentation"])  # uint8 [height, width]
```

`datasets.load_dataset(FOLDER)` and `webdataset` read the tars,
`datasets.load_dataset("parquet", data_files="FOLDER/masks/*.parquet")` reads the table of the masks.

## Fields

A JSON file has the fields of SA-1B: `image` (image_id, width, height, file_name) and `annotations` (id, segmentation,
bbox, area, predicted_iou, stability_score, crop_box, point_coords). Two things differ from what SA-1B's code wrote:
`bbox` is pycocotools' `toBbox`, one pixel wider and higher; scores are null and `point_coords` is empty for masks that
have none. The table of the masks has these columns:

| column | meaning |
|---|---|
{columns}

## How the masks were made

{words.stages(manifest)} Model versions: {words.models(manifest)}.

{words.people(manifest)} {words.agreement(manifest)}

## Left out

{left_out}
"""
