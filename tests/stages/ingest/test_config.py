import pytest

from stages.ingest.config import IngestConfig


@pytest.mark.parametrize("setting", ["shortest_side_px", "min_side_px", "max_pixels", "images_per_shard", "threads"])
def test_settings_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} is 0, expected at least 1"):
        IngestConfig(**{setting: 0})


def test_more_pixels_than_can_be_decoded_are_refused() -> None:
    with pytest.raises(ValueError, match="max_pixels is 1000000000, at most 178956970 can be decoded"):
        IngestConfig(max_pixels=10**9)


@pytest.mark.parametrize("country", ["Germany", "de", "DEU", "D1"])
def test_a_country_that_is_no_code_is_refused(country: str) -> None:
    with pytest.raises(ValueError, match=f"country is '{country}', expected two capital letters of ISO 3166-1"):
        IngestConfig(country=country)
    assert IngestConfig(country="DE").settings()["country"] == "DE"


def test_a_setting_that_came_later_is_recorded_only_where_it_is_used() -> None:
    assert "takes_unended_jpegs" not in IngestConfig().settings()  # plans of earlier versions keep their ids
    assert IngestConfig(takes_unended_jpegs=True).settings()["takes_unended_jpegs"] is True
