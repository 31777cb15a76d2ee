"""Make a dataset of a folder of photos, query it, and walk over its images and masks.

python examples/query_a_dataset.py PHOTOS DATASET [MODEL] [POINTS_PER_SIDE]
"""

import sys

import gigamask


def main(photos: str, uri: str, model: str = "seed", points_per_side: str = "32") -> None:
    """Ingest, mask and query; a second call does only what is missing."""
    # Make it. `gigamask run PHOTOS --dataset DATASET` does the same on several processes.
    dataset = gigamask.Dataset.open_or_create(uri)
    report = gigamask.ingest_photos([photos], dataset)
    print(f"{report.images} images, rejects by reason: {report.reasons()}")
    gigamask.mask_images(dataset, model, gigamask.GenerateConfig(points_per_side=int(points_per_side)))

    # Query it: SQL over the tables images, masks, shards and rejects gives an Arrow table.
    counts = dataset.query("SELECT model_id, count(*) AS masks, avg(area_px) AS mean_area_px FROM masks GROUP BY 1")
    print(counts.to_pandas().to_string(index=False))
    small = dataset.query("SELECT count(*) AS masks FROM masks WHERE area_px < 32 * 32")
    print(f"{small['masks'][0]} masks are smaller than 32 x 32 px")

    # Walk over its images and masks as they are now, and as they will be in this snapshot for good.
    snapshot = dataset.snapshot().snapshot_id
    for sample in gigamask.training_samples(dataset, snapshot):
        image_HW3 = gigamask.images.decode(sample.data)
        largest_HW = gigamask.rle.decode(max(sample.masks, key=lambda mask: mask.area_px).rle)
        colour = image_HW3[largest_HW].mean(axis=0).round().tolist()
        print(f"{sample.image.source}: {len(sample.masks)} masks, mean colour of the largest {colour}")


if __name__ == "__main__":
    main(*sys.argv[1:])
