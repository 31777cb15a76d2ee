"""From rows to images and masks, whatever their shards say of what they were made from."""

from types import SimpleNamespace

from stages.training.snapshot_source import training_samples
from storage.dataset import Dataset
from storage.protocol.plans import PlannedShard


def test_masks_of_a_shard_that_names_no_image_shard_are_found_too(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset)
    samples.mask(dataset)
    (image, _), *_ = dataset.read_images(dataset.image_shards()[0])
    shard = PlannedShard(name="00000")
    plan = dataset.new_plan("masks", [shard], {"drawn": "by hand"})
    drawn = samples.make_masks(image, plan, shard)
    dataset.write_masks(plan, shard, [(image, drawn)])
    dataset.fold()
    assert dataset.masks_of_image(image.image_id).num_rows == 6
    assert dataset.read_mask(image.image_id, drawn[0].mask_id).rle == drawn[0].rle
    snapshot = dataset.snapshot().snapshot_id
    (sample,) = [each for each in training_samples(dataset, snapshot) if each.image.image_id == image.image_id]
    assert len(sample.masks) == 6
