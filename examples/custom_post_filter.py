"""A filter of your own after the generator: withdraw the masks it drops from a dataset.

python examples/custom_post_filter.py DATASET

The filter here drops masks that touch the image's border: objects that are probably cut off. A withdrawal is a commit
of its own. It deletes nothing, and earlier snapshots keep the masks.
"""

import sys

import gigamask


def is_inside(image: gigamask.ImageRecord, mask: gigamask.MaskRecord) -> bool:
    """Whether the mask's box, half-open in pixels, stays clear of all four sides of its image."""
    x0, y0, x1, y1 = mask.box_xyxy
    return x0 > 0 and y0 > 0 and x1 < image.width and y1 < image.height


def main(uri: str) -> None:
    """Apply the filter to every mask of the dataset."""
    dataset = gigamask.Dataset.open(uri)
    before = dataset.snapshot().snapshot_id

    # Any test will do here: of the mask's record, of its pixels (`gigamask.rle.decode(mask.rle)`).
    dropped = [
        (mask.image_id, mask.mask_id)
        for sample in gigamask.training_samples(dataset, before)
        for mask in sample.masks
        if not is_inside(sample.image, mask)
    ]
    if dropped:
        dataset.withdraw(dropped, reason="touches the border")

    count = "SELECT count(*) AS masks FROM masks"
    were, are = dataset.query(count, before)["masks"][0], dataset.query(count)["masks"][0]
    print(f"{were} masks in snapshot {before}, {are} now: {len(dropped)} withdrawn")


if __name__ == "__main__":
    main(*sys.argv[1:])
