import pytest

from stages.ingest.config import IngestConfig


@pytest.mark.parametrize("setting", ["shortest_side_px", "min_side_px", "max_pixels", "images_per_shard", "threads"])
def test_settings_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} is 0, expected at least 1"):
        IngestConfig(**{setting: 0})


def test_more_pixels_than_can_be_decoded_are_refused() -> None:
    with pytest.raises(ValueError, match="max_pixels is 1000000000, at most 178956970 can be decoded"):
        IngestConfig(max_pixels=10**9)
