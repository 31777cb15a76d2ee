from pathlib import Path

import pytest

from tests.stages.annotator.fuzz import fuzz, site_in


@pytest.mark.slow
def test_no_request_makes_the_server_fail(tmp_path: Path) -> None:
    with site_in(tmp_path) as site:
        tally = fuzz(site, 300)
    assert tally.failures == []
    assert tally.requests > 200
    codes = {code for counts in tally.by_route.values() for code in counts}
    assert {200, 403, 404, 422} <= codes
    answered = [route for route, counts in tally.by_route.items() if counts[200]]
    assert len(answered) > len(tally.by_route) / 2, "requests must get past the first check"
