import pytest

from stages.annotator.errors import Refusal
from stages.annotator.limits import RateLimit


class Clock:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(0.5, burst=3, clock=clock)
    for _ in range(3):
        limit.take("ann", "logins")
    with pytest.raises(Refusal, match="too many logins: expected at most 3 at once") as refused:
        limit.take("ann", "logins")
    assert (refused.value.status, refused.value.retry_s) == (429, 2)
    limit.take("bob", "logins")
    clock.now = 2.0
    limit.take("ann", "logins")
    with pytest.raises(Refusal):
        limit.take("ann", "logins")
    clock.now = 1000.0
    for _ in range(3):
        limit.take("ann", "logins")
    with pytest.raises(Refusal):
        limit.take("ann", "logins")
