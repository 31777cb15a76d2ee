"""Limits of this process under which PyTorch and Ray fail.

Neither is imported here, so that the limit is reported at once.
"""

import resource

MIN_ADDRESSES_BYTES = 4 << 30
"""Smallest limit of virtual memory under which Ray was seen to start; under 1.4 GiB it waited without end. A training
of a small network ran out of memory under 3 GiB now and then.
"""


def check_addresses() -> None:
    """Check the limit of virtual memory, below which a Ray on this machine hangs and PyTorch runs out of memory.

    Raises:
        ValueError: It is too low.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESSES_BYTES:
        given = f"`ulimit -v` allows {limit / 2**30:.1f} GiB of virtual memory"
        raise ValueError(f"{given}; PyTorch and Ray reserve up to {MIN_ADDRESSES_BYTES >> 30} GiB; raise the limit")
