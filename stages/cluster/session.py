"""Session of Ray for one run: Ray is started on this machine, or the cluster at an address is joined."""

import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ray
from ray.job_config import JobConfig

from stages.cluster.limits import check_addresses
from stages.cluster.pool import Machine, PoolConfig

TOKEN_VARIABLES = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
"""Environment variables with which a user gives Ray a key."""

MAX_FOLDER_BYTES = 28
"""Longest path of the folder for temporary files, in bytes: sockets' paths have at most 107, and up to 79 are added."""
SHARED_MEMORY = "/dev/shm"
"""Folder of Ray's object store, where it can be written."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders for Ray's sockets where the path of the usual one is too long."""


@contextmanager
def ray_session(config: PoolConfig, **local_options: Any) -> Iterator[None]:
    """Connect this process to Ray for the length of a `with` block.

    A connection that exists is kept and stays open. Otherwise the block joins the cluster at `config.address`, or, if
    the address is None, starts Ray on this machine with `local_options` as options of `ray.init`. Such a new connection
    is shut down at the end of the block.

    Raises:
        ConnectionError: No Ray cluster answers at `config.address`.
        ChildProcessError: Ray does not start on this machine.
        ValueError: This process may not have as much memory as Ray reserves.
    """
    if ray.is_initialized():
        yield
        return
    if config.address is None:
        check_addresses()

    # Threads that wait should sleep: on a machine with other work, spinning made two threads 9 times slower than one.
    environment = {"OMP_WAIT_POLICY": "PASSIVE"}
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", **environment}  # workers on this machine inherit it
    if config.address is None and not TOKEN_VARIABLES & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = _own_token()

    # Connect to the cluster, or start one on this machine
    local: dict[str, Any] = {
        "object_store_memory": config.object_store_bytes,
        "include_dashboard": False,
        "_temp_dir": _folder(),
        "_plasma_directory": None if os.access(SHARED_MEMORY, os.W_OK) else tempfile.gettempdir(),
        **local_options,
    }
    remote: dict[str, Any] = {"runtime_env": {"env_vars": environment}}
    try:
        ray.init(
            address=config.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Else Ray puts the current folder first where workers look for modules, and users have an engine.py
            job_config=JobConfig(_client_job=True),
            **(remote if config.address else local),
        )
    except Exception as error:
        if config.address is not None or not _is_failed_start(error):
            raise
        first_line = str(error).partition("\n")[0].rstrip(". ")
        raise ChildProcessError(
            f"Ray did not start on this machine: {first_line}; it may be too busy or short of memory: "
            "run the same command again, or `gigamask doctor`"
        ) from error

    # Even so Ray prints the death of a worker, to standard output, where a command's JSON goes. This is the switch that
    # Ray's own debugger uses; the driver counts and reports deaths itself.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


def _is_failed_start(error: Exception) -> bool:
    """Tell whether one of Ray's processes died or was too slow, rather than an option or a folder being wrong."""
    return isinstance(error, (RuntimeError, TimeoutError)) or type(error) is Exception  # node.py raises all of these


def _folder() -> str | None:
    """Choose the folder of Ray's sockets and logs: where temporary files go, unless its path is too long for sockets.

    Ray would take TMPDIR even where nothing can be written into it.

    Returns:
        The folder; None where the user chose one for Ray.

    Raises:
        ValueError: There is none.
        FileNotFoundError: No folder for temporary files can be written into.
    """
    if os.environ.get("RAY_TMPDIR"):
        return None
    own = f"ray-{os.getuid()}"  # on a machine of several users, the first one owns /tmp/ray
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= MAX_FOLDER_BYTES:
        return f"{usual}/{own}"
    for folder in SHORT_FOLDERS:
        if os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}/{own}"
    raise ValueError(f"TMPDIR={usual}: too long for Ray's sockets; set it to a folder of {MAX_FOLDER_BYTES} bytes")


@cache
def _own_token() -> str:
    """Make the key that the Ray of this process asks its workers for.

    Ray itself would write one into the user's home, which may not be writable. It reads the key once in a process.
    """
    return secrets.token_hex(32)


def machines() -> list[Machine]:
    """List the machines that the cluster has at present."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [
        Machine(cores=int(has.get("CPU", 0)), gpus=int(has.get("GPU", 0)), memory_bytes=int(has.get("memory", 0)))
        for has in found
    ]
