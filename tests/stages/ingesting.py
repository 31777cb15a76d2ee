"""What the tests of ingest share: settings, and what a dataset holds."""

from dataclasses import replace

from stages.ingest.config import IngestConfig
from stages.ingest.ingest import IngestReport
from storage.dataset import Dataset
from storage.records import ImageRecord

SMALL_SHARDS = IngestConfig(images_per_shard=3, threads=2)


def stored(dataset: Dataset) -> dict[str, tuple[ImageRecord, bytes]]:
    """source -> record and bytes, of every committed image."""
    images = [image for shard in dataset.image_shards() for image in dataset.read_images(shard)]
    return {record.source: (record, data) for record, data in images}


def repeatable(report: IngestReport) -> IngestReport:
    return replace(report, new_shards=0, seconds=0.0)
