"""Croissant 1.1 metadata of a release (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html), with RAI.

Masks are described by the Parquet tables: a reader that takes them out of the JSON files by jsonPath puts values of an
image and lists of its masks into one frame, and fails. The context is that of the specification, word by word.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from stages.release import rows
from stages.release.documents import licenses, rai, words
from stages.release.folder import File

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_FORMATS = {".tar": "application/x-tar", ".parquet": "application/x-parquet", ".json": "application/json"}
_TYPES = {pa.int64(): "sc:Integer", pa.int32(): "sc:Integer", pa.float64(): "sc:Float", pa.string(): "sc:Text"}
_BOXES = ("bbox", "crop_box")


def make_croissant(manifest: Mapping[str, Any], files: Sequence[File]) -> dict[str, Any]:
    """Make the metadata of a release from its manifest and from its tars, tables and lists."""
    settings = manifest["settings"]
    described = [file for file in files if file.path.endswith((".tar", ".parquet"))]
    tars = [file.path for file in described if file.path.endswith(".tar")]
    optional = {
        "license": licenses.names(manifest),
        "creator": {"@type": "sc:Organization", "name": settings["creator"]} if settings["creator"] else None,
        "url": settings["url"],
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": slug(settings["title"]),
        "alternateName": settings["title"],
        "description": _description(manifest),
        **{name: value for name, value in optional.items() if value},
        "citeAs": _citation(manifest),
        "version": "1.0.0",
        "identifier": manifest["release_id"],
        "datePublished": datetime.fromisoformat(manifest["snapshot"]["created_at"]).date().isoformat(),
        "isLiveDataset": False,
        **rai.properties(manifest),
        "distribution": [*(_file_object(file) for file in described), *_file_sets(tars)],
        "recordSet": [_splits(), _table("images", rows.IMAGES), _table("masks", rows.MASKS), _pictures()],
    }


def slug(title: str) -> str:
    """Make a name of letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "release"


def _description(manifest: Mapping[str, Any]) -> str:
    return (
        f"{manifest['images']:,} images with {manifest['masks']:,} segmentation masks in the form of SA-1B: tars of "
        "JPEG and JSON files, and Parquet tables of the images and of the masks. Masks are COCO run lengths. "
        + words.deidentification(manifest)
    )


def _citation(manifest: Mapping[str, Any]) -> str:
    settings = manifest["settings"]
    maker = f"{settings['creator']}: " if settings["creator"] else ""
    return f"{maker}{settings['title']}, release {manifest['release_id']}, made with gigamask."


def _file_object(file: File) -> dict[str, Any]:
    ending = file.path[file.path.rindex(".") :]
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.nbytes} B",
        "encodingFormat": _FORMATS[ending],
        "sha256": file.sha256,
    }


def _file_sets(tars: Sequence[str]) -> list[dict[str, Any]]:
    archives = [{"@id": tar} for tar in tars]
    sets = [
        ("picture-files", "Images, as JPEG.", "image/jpeg", "*.jpg", archives),
        (
            "annotation-files",
            "Masks of each image, as JSON in the form of SA-1B.",
            _FORMATS[".json"],
            "*.json",
            archives,
        ),
        ("images-tables", "Tables of the images.", _FORMATS[".parquet"], "images/*.parquet", []),
        ("masks-tables", "Tables of the masks.", _FORMATS[".parquet"], "masks/*.parquet", []),
    ]
    return [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "description": description,
            "encodingFormat": encoding,
            "includes": includes,
            **({"containedIn": contained} if contained else {}),
        }
        for name, description, encoding, includes, contained in sets
    ]


def _splits() -> dict[str, Any]:
    field = {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"}
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "Training and held-out images; an image's side follows from its id in the dataset that it was "
        "released from, not from its number here.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [field],
        "data": [{"splits/name": "train"}, {"splits/name": "holdout"}],
    }


def _table(name: str, schema: pa.Schema) -> dict[str, Any]:
    key = "image_id" if name == "images" else "id"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"One record for each of the {name}.",
        "key": {"@id": f"{name}/{key}"},
        "field": [_column(name, column) for column in schema],
    }


def _column(table: str, column: pa.Field) -> dict[str, Any]:
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{table}/{column.name}",
        "name": column.name,
        "description": rows.NOTES[column.name],
        "dataType": _TYPES.get(column.type, "sc:Float"),
        "source": {"fileSet": {"@id": f"{table}-tables"}, "extract": {"column": column.name}},
    }
    if column.name in _BOXES:
        field |= {"isArray": True, "arrayShape": "4"}
    if column.name == "counts":
        field["dataType"] = ["sc:Text", "cr:Label"]
    if column.name == "split":
        field["references"] = {"field": {"@id": "splits/name"}}
    return field


def _pictures() -> dict[str, Any]:
    source = {"fileSet": {"@id": "picture-files"}}
    return {
        "@type": "cr:RecordSet",
        "@id": "pictures",
        "name": "pictures",
        "description": "One record for each image: its file name, which the tables name too, and its pixels.",
        "key": {"@id": "pictures/file_name"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "pictures/file_name",
                "name": "file_name",
                "description": rows.NOTES["file_name"],
                "dataType": "sc:Text",
                "source": {**source, "extract": {"fileProperty": "filename"}},
            },
            {
                "@type": "cr:Field",
                "@id": "pictures/image",
                "name": "image",
                "description": "Pixels of the image.",
                "dataType": "sc:ImageObject",
                "source": {**source, "extract": {"fileProperty": "content"}},
            },
        ],
    }
