from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.rounds.timing import active_time
from storage.workspace.records import Kind, StoredOperation


def activity(payload: Mapping[str, Any], *, session: str = "s", sequence: int = 0) -> StoredOperation:
    return StoredOperation(
        op_id="",
        session=session,
        sequence=sequence,
        base_revision=0,
        kind=Kind.ACTIVITY,
        payload=payload,
        client_time=datetime.now(UTC),
        number=1,
        task_id=1,
        annotator="ann",
        token="",
        branch="",
        revision=0,
        server_time=datetime.now(UTC),
    )


def test_the_gap_before_an_input_counts_for_its_mask() -> None:
    time = active_time([activity({"inputs": [[0, None], [3, "a"], [4, "a"], [6, None], [8, "b"]]})])
    assert (time.by_mask, time.search_s, time.total_s) == ({"a": 4.0, "b": 2.0}, 2.0, 8.0)


def test_a_long_gap_counts_up_to_the_cap_which_can_change() -> None:
    line = [activity({"inputs": [[0, None], [100, "a"]]})]
    assert active_time(line).by_mask == {"a": 10.0}
    assert active_time(line, cap_s=30).by_mask == {"a": 30.0}


def test_a_hidden_page_counts_nothing() -> None:
    time = active_time([activity({"inputs": [[0, None], [8, "a"], [12, "a"]], "hidden": [[1, 7], [11, 20]]})])
    assert time.by_mask == {"a": 2.0 + 3.0}


def test_sessions_are_counted_apart_and_their_pieces_together() -> None:
    time = active_time(
        [
            activity({"inputs": [[12, "a"]]}, sequence=5),
            activity({"inputs": [[10, None]]}, sequence=2),
            activity({"inputs": [[5000, "a"], [5001, "a"]]}, session="other"),
        ]
    )
    assert time.by_mask == {"a": 3.0}


def test_a_clock_set_back_counts_nothing() -> None:
    assert active_time([activity({"inputs": [[10, "a"], [5, "a"], [6, "a"]]})]).total_s == 1.0


def test_seconds_of_a_time_model_are_called_simulated() -> None:
    assert active_time([activity({"inputs": [], "simulated": True})]).simulated
    assert not active_time([activity({"inputs": []})]).simulated


@given(st.lists(st.tuples(st.floats(0, 1e4), st.sampled_from(["a", "b", None])), max_size=30))
def test_the_parts_add_up_and_never_exceed_the_caps(inputs: list[tuple[float, str | None]]) -> None:
    inputs.sort(key=lambda pair: pair[0])
    time = active_time([activity({"inputs": [list(pair) for pair in inputs]})])
    gaps = [min(10.0, after - before) for (before, _), (after, _) in pairwise(inputs)]
    assert time.total_s == pytest.approx(sum(gaps))
