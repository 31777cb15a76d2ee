import pytest

from stages.ingest.stats import IngestStats


def test_statistics_are_read_as_they_were_written_with_those_of_other_versions() -> None:
    stats = IngestStats(photos=5, unchanged=1, others={"blurred": 2})
    assert IngestStats.from_json(stats.to_json()) == stats
    assert stats.to_json()["blurred"] == 2
    assert IngestStats.from_json({}) == IngestStats()


def test_a_count_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="photos is 'five'"):
        IngestStats.from_json({"photos": "five"})
