"""A real PostgreSQL server for tests, on loopback. Needs Debian's package `postgresql`.

PostgreSQL refuses to run as root; in a container it runs as the user that the package made.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SETTINGS = ("listen_addresses=127.0.0.1", "max_connections=200", "fsync=off", "shared_buffers=64MB", "timezone=UTC")


def programs() -> Path | None:
    """Folder of the newest installed PostgreSQL's programs; None if there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


class Server:
    """A running server; `url(name)` is the address of a database in it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def url(self, database: str) -> str:
        """Address of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = " ".join(f"-c {each}" for each in (*_SETTINGS, f"port={self.port}"))
        command = ["pg_ctl", "-D", "data", "-w", "-t", "60", "-l", "log", "-o", f"{options} -k {self.folder}", "start"]
        _run(self.folder, *command)

    def stop(self, how: str = "fast") -> None:
        """Stop the server: fast, or immediate, which is a crash with recovery at the next start."""
        _run(self.folder, "pg_ctl", "-D", "data", "-w", "-m", how, "stop")


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server in a new folder, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, user="postgres")
        _run(folder, "initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        server = Server(folder, _free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, program: str, *arguments: str) -> None:
    home = programs()
    assert home is not None
    user = {"user": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [str(home / program), *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        **user,
    )
    if done.returncode:
        log = folder / "log"
        raise RuntimeError(f"{program}: {done.stderr} {log.read_text() if log.exists() else ''}")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


if __name__ == "__main__":
    with serving() as running:
        print(running.url("postgres"), flush=True)
        while True:
            time.sleep(3600)
