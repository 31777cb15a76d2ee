import pytest

from engine.automatic.diagnostics import Diagnostics
from engine.automatic.filters import Filter
from stages.fully_automatic.stats import MaskStats

ONE = MaskStats(diagnostics=Diagnostics(candidates=27, kept=3, best_predicted_iou=0.9), others={"clicks": 4})
NONE_KEPT = Diagnostics(candidates=9, taken={Filter.FAILED_STABILITY: 9}, best_predicted_iou=0.5)
TWO = MaskStats(diagnostics=NONE_KEPT, without_masks={"0a": NONE_KEPT})


def test_statistics_are_read_as_they_were_written() -> None:
    for stats in (MaskStats(), ONE, TWO):
        assert MaskStats.from_json(stats.to_json()) == stats


def test_statistics_that_this_version_does_not_know_are_kept() -> None:
    assert MaskStats.from_json({"seconds_of_people": 12.5}).to_json()["seconds_of_people"] == 12.5


def test_added_up_counts_are_sums_and_best_scores_the_highest() -> None:
    total = MaskStats.total([ONE, MaskStats(), TWO])
    assert total.diagnostics is not None
    assert (total.diagnostics.candidates, total.diagnostics.best_predicted_iou) == (36, 0.9)
    assert (total.without_masks, total.others) == ({"0a": NONE_KEPT}, {"clicks": 4})
    assert MaskStats.total([]).diagnostics is None


@pytest.mark.parametrize("content", [{"diagnostics": 3}, {"diagnostics": {"x": 1}}, {"without_masks": ["0a"]}])
def test_statistics_of_another_form_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="statistics of a mask shard"):
        MaskStats.from_json(content)
