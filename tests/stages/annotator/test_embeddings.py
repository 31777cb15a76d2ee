import threading
from pathlib import Path

import numpy as np
import pytest

from stages.annotator.embeddings import EmbeddingCache, EmbeddingKey


def key(number: int = 0, model: str = "seed-000000000000") -> EmbeddingKey:
    return EmbeddingKey(image_sha256=f"{number:064x}", model_id=model, crop_xyxy=(0, 0, 64, 64))


def embedding(value: float = 1.0) -> np.ndarray:
    return np.full((4, 8, 8), value, dtype=np.float16)


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path, max_disk_bytes=100_000, max_memory_bytes=100_000)


def again(cache: EmbeddingCache, **limits: int) -> EmbeddingCache:
    """The cache of another process over the same folder."""
    return EmbeddingCache(cache.folder, **{"max_disk_bytes": 100_000, "max_memory_bytes": 100_000} | limits)


def test_an_embedding_is_found_by_image_model_and_window_in_another_process_too(cache: EmbeddingCache) -> None:
    cache.put(key(), embedding(0.25))
    for each in (cache, again(cache)):
        found = each.get(key())
        assert found is not None
        assert np.array_equal(found, embedding(0.25))
        assert found.dtype == np.float16
        assert each.get(key(1)) is None
        assert each.get(key(model="other-000000000000")) is None


def test_a_damaged_file_is_removed_and_counts_as_missing(cache: EmbeddingCache) -> None:
    cache.put(key(), embedding())
    path = cache.folder / key().path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert again(cache).get(key()) is None
    assert not path.exists()
    path.write_bytes(b"short")
    assert again(cache).get(key()) is None


def test_the_files_used_least_recently_make_room(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, max_disk_bytes=5 * 600, max_memory_bytes=1)
    for number in range(5):
        cache.put(key(number), embedding(number))
    for number in range(5, 12):
        assert cache.get(key(0)) is not None  # used, so it stays
        cache.put(key(number), embedding(number))
    files = list(tmp_path.rglob("*.embedding"))
    assert sum(path.stat().st_size for path in files) <= 5 * 600
    assert (tmp_path / key(0).path).exists()
    assert (tmp_path / key(11).path).exists()
    assert not (tmp_path / key(1).path).exists()


def test_memory_stays_within_its_limit(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, max_disk_bytes=10**6, max_memory_bytes=2000)
    for number in range(20):
        cache.put(key(number), embedding())
        assert cache.memory_bytes <= 2000
    assert all(cache.get(key(number)) is not None for number in range(20))  # from the disk


def test_where_nothing_can_be_written_memory_alone_is_used_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")  # a file where the folder should be: as a full disk, it gives an OSError
    cache = EmbeddingCache(tmp_path / "file", max_disk_bytes=10**6, max_memory_bytes=10**6)
    for number in range(3):
        cache.put(key(number), embedding())
        assert cache.get(key(number)) is not None
    assert len(caplog.records) == 1
    assert "memory alone" in caplog.text


def test_several_threads_may_write_and_read_at_once(cache: EmbeddingCache) -> None:
    wrong = []

    def work(seed: int) -> None:
        numbers = np.random.default_rng(seed).integers(0, 30, 200)
        for number in numbers:
            cache.put(key(number), embedding(number))
            found = cache.get(key(number))
            if found is None or found[0, 0, 0] != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
