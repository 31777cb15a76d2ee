from types import SimpleNamespace

import pytest

from storage.dataset import Dataset
from storage.errors import Corrupt
from storage.objects.local import LocalStore
from storage.tables import contents


@pytest.mark.parametrize("run", [range(5), range(1, 3), range(4, 5), range(2, 2)])
def test_a_run_of_images_is_that_of_the_whole_shard(dataset: Dataset, samples: SimpleNamespace, run: range) -> None:
    samples.ingest(dataset, shards=1, images=5)
    (shard,) = dataset.image_shards()
    every = list(dataset.read_images(shard))
    assert list(contents.read_images_at(dataset.store, shard, run)) == every[run.start : run.stop]


def test_a_run_goes_on_in_the_images_that_a_redo_added(dataset: Dataset, samples: SimpleNamespace) -> None:
    plan = samples.ingest(dataset, shards=1, images=3)
    (first,) = dataset.image_shards()
    redo = dataset.maintenance.plan_redo(plan)
    dataset.write_images(redo, redo.shards[0], [samples.make_image(7), samples.make_image(8)], inherited=first)
    (shard,) = dataset.image_shards()
    every = list(dataset.read_images(shard))
    assert len(every) == 5
    assert list(contents.read_images_at(dataset.store, shard, range(2, 4))) == every[2:4]


def test_a_run_reads_no_byte_of_other_images(
    dataset: Dataset, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.ingest(dataset, shards=1, images=5)
    (shard,) = dataset.image_shards()
    read: list[int] = []
    get_range = LocalStore.get_range

    def counted(store: LocalStore, key: str, offset: int, nbytes: int) -> bytes:
        read.append(nbytes)
        return get_range(store, key, offset, nbytes)

    monkeypatch.setattr(LocalStore, "get_range", counted)
    images = list(contents.read_images_at(dataset.store, shard, range(3, 5)))
    assert read == [image.nbytes for image, _ in images]


def test_a_damaged_image_of_a_run_is_corrupt(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset, shards=1, images=3)
    (shard,) = dataset.image_shards()
    (part,) = shard.tars()
    image = list(dataset.read_images(shard))[1]
    data = dataset.store.get(part.key)
    at = data.index(image[1]) + 30
    dataset.store.put(part.key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert len(list(contents.read_images_at(dataset.store, shard, range(2, 3)))) == 1
    with pytest.raises(Corrupt, match=f"image {image[0].key} is damaged"):
        list(contents.read_images_at(dataset.store, shard, range(1, 2)))


def test_a_run_beyond_the_shard_is_refused(dataset: Dataset, samples: SimpleNamespace) -> None:
    samples.ingest(dataset, shards=1, images=3)
    (shard,) = dataset.image_shards()
    with pytest.raises(ValueError, match=r"images 2 to 3 .* has 3"):
        list(contents.read_images_at(dataset.store, shard, range(2, 4)))
