"""Read a release with mlcroissant and `datasets`, without gigamask; prints what they found as JSON.

`python outside_programs.py FOLDER`, in an environment that holds both, for one run alone: mlcroissant keeps what it
unpacked below the home folder by the path of a tar.
"""

import json
import sys

import datasets
import mlcroissant


def main() -> None:
    """Read the folder that the command line names."""
    folder = sys.argv[1]
    croissant = mlcroissant.Dataset(jsonld=f"{folder}/croissant.json")
    issues = croissant.metadata.ctx.issues
    records = {name: list(croissant.records(name)) for name in ("images", "masks", "pictures", "splits")}
    images = datasets.load_dataset(folder)["full"]
    masks = datasets.load_dataset("parquet", data_files=f"{folder}/masks/*.parquet")["train"]
    found = {
        "issues": sorted({*issues.warnings, *issues.errors}),
        "records": {name: len(rows) for name, rows in records.items()},
        "counts": sorted(row["masks/counts"].decode() for row in records["masks"]),
        "picture_sizes": sorted({row["pictures/image"].size for row in records["pictures"]}),
        "hub_names": images["__key__"],
        "hub_masks": sum(len(row["json"]["annotations"]) for row in images),
        "hub_picture_sizes": sorted({row["jpg"].size for row in images}),
        "hub_counts": sorted(masks["counts"]),
    }
    print(json.dumps(found, default=list))


if __name__ == "__main__":
    main()
