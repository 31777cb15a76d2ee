"""Limits of this process under which Ray cannot start. This module imports no Ray, so that they are told at once."""

import resource

from stages.cluster.pool import PoolConfig

MIN_ADDRESSES_BYTES = 4 << 30
"""Smallest limit of virtual memory under which Ray was seen to start; under 1.4 GiB it waited without end."""


def check_limits(config: PoolConfig) -> None:
    """Check the limit of virtual memory, below which a Ray on this machine hangs.

    Raises:
        ValueError: It is too low.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if config.address is None and limit != resource.RLIM_INFINITY and limit < MIN_ADDRESSES_BYTES:
        given = f"`ulimit -v` allows {limit / 2**30:.1f} GiB of virtual memory"
        raise ValueError(f"{given}; Ray reserves up to {MIN_ADDRESSES_BYTES >> 30} GiB; raise the limit")
