from pathlib import Path

import pytest

from stages.fully_automatic.in_process import mask_images
from stages.fully_automatic.outcomes import ShardsFailed
from stages.fully_automatic.worker import ShardWorker
from storage.dataset import Dataset
from tests.stages.masking import CONFIG


def test_a_shard_that_fails_is_named_after_the_others_are_made(
    photographed: Dataset, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = ShardWorker.mask_shard
    failed: list[str] = []

    def failing(self: ShardWorker, plan_id: str, shard_name: str) -> object:
        if not failed:
            failed.append(shard_name)
            raise ValueError("this shard alone")
        return real(self, plan_id, shard_name)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWorker, "mask_shard", failing)
        with pytest.raises(ShardsFailed, match=r"1 shards failed .*/[0-9a-f]+: ValueError: this shard alone"):
            mask_images(photographed, tiny_model, CONFIG)
    assert "Traceback" in caplog.text
    (status,) = [each for each in photographed.status() if each.kind == "masks"]
    assert list(status.missing) == failed
    (row,) = photographed.query("SELECT count(*) AS n FROM shards WHERE kind = 'masks'").to_pylist()
    assert row["n"] == status.done == status.planned - 1 > 0
    assert [result.shard for result in mask_images(photographed, tiny_model, CONFIG)] == failed
