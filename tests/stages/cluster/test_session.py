import pytest
import ray

from stages.cluster.pool import PoolConfig
from stages.cluster.session import ray_session


@pytest.mark.slow
def test_a_ray_that_does_not_start_is_one_clear_error() -> None:
    broken = {"event_stats": "neither true nor false"}  # the first of Ray's processes ends because of it
    session = ray_session(PoolConfig(), num_cpus=1, _system_config=broken)
    with pytest.raises(ChildProcessError, match=r"^Ray did not start on this machine: .*; .* run the same"), session:
        pass
    assert not ray.is_initialized()


def test_a_wrong_option_of_ray_stays_the_error_that_ray_makes_of_it() -> None:
    with (
        pytest.raises(ValueError, match="object store memory usage at 1 bytes"),
        ray_session(PoolConfig(object_store_bytes=1)),
    ):
        pass
