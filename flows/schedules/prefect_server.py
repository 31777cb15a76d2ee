"""A private Prefect server for one scheduler: a process on this machine with its history in an SQLite file.

A team sets PREFECT_API_URL to a shared server on PostgreSQL instead, and no private one is started.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.local_server import end_with_parent, find_free_port, stop_server, wait_for_server
from stages.training.work_folder import exclusive_lock

STOP_S = 30.0
"""Longest time that a server has to end, in seconds."""
MAX_SERVERS = 16
"""Largest number of private servers side by side in one folder."""
_NO_REPORTS = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


@contextmanager
def serving_prefect(folder: Path, *, port: int = 0) -> Iterator[str]:
    """Run a server during the block, and give the address of its API.

    Each server has a folder of its own, which is used again by the next one. It ends with this process, however that
    ends.

    Args:
        folder: Folder of the servers' histories and logs.
        port: Port on loopback; 0 takes a free one.

    Raises:
        ChildProcessError: The server ended, at its start or later; the message names its log.
        TimeoutError: The server does not answer after its start.
        ValueError: `MAX_SERVERS` servers run already.
    """
    with _own_folder(folder) as home:
        port = port or find_free_port()
        url = f"http://127.0.0.1:{port}/api"
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--timeout-keep-alive", "5"]
        environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_UI_API_URL": url, **_NO_REPORTS}
        environment.pop("PREFECT_API_URL", None)
        log = home / "server.log"
        with log.open("ab") as output:
            server = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, preexec_fn=end_with_parent
            )
            try:
                wait_for_server("Prefect's server", f"{url}/health", server, log)
                yield url
            except Exception as error:
                if server.poll() is None:
                    raise
                raise ChildProcessError(
                    f"Prefect's server ended with {server.returncode}; see {log}; the same command continues"
                ) from error
            finally:
                stop_server(server, STOP_S)


@contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """Hold the first folder that no other scheduler holds: two servers on one SQLite file would lock each other out."""
    for number in range(MAX_SERVERS):
        with ExitStack() as stack:
            home = folder / f"server-{number}"
            try:
                stack.enter_context(exclusive_lock(home))
            except ValueError:
                continue
            yield home
            return
    raise ValueError(f"{folder}: {MAX_SERVERS} schedulers run already, or this file system locks no files")
