"""A real S3 server for tests: Ceph's radosgw with one monitor and one in-memory store, on loopback.

    python tests/s3_server.py FOLDER PORT

Prints "ready" and stays until it is told to end (SIGTERM). Keys: testtest / secretsecret. Needs Debian's ceph-mon,
ceph-osd and radosgw (`apt-get install --no-install-recommends ceph-mon ceph-osd radosgw`).
"""

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool")
ACCESS_KEY, SECRET_KEY = "testtest", "secretsecret"

SETTINGS = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
# without authentication the default, secure mode, waits for ever
ms mon client mode = crc
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
pid file = {folder}/$name.pid
mon data = {folder}/mon
mon data avail warn = 1
mon allow pool size one = true
mon max pg per osd = 2000
# pools are created at the first request: a monitor that gathers changes for a second each time took most of the tests
paxos propose interval = 0.01
paxos min wait = 0.01
mon tick interval = 1
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
# the default queue paces requests as a hard disk would need it
osd op queue = wpq
osd mclock skip benchmark = true
osd class load list = *
osd class default list = *
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
[client.rgw]
# without tcp_nodelay every answer with a body waits 40 ms for an acknowledgement
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw data = {folder}/rgw
rgw thread pool size = 64
"""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Address of a server of its own, which keeps its files in `folder`. Raises SystemExit where it does not start."""
    port = free_port()
    command = [sys.executable, __file__, str(folder), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    if server.stdout.readline() != "ready\n":
        raise SystemExit(f"no S3 server: {server.communicate()[1].strip()}")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=60)


def environment(endpoint: str) -> dict[str, str]:
    """How clients find it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nowhere",
    }


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


def main(folder: Path, port: int) -> None:
    children: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        start(folder, port, children)
        print("ready", flush=True)
        signal.pause()
    finally:
        for child in reversed(children):
            child.kill()
        for child in children:
            child.wait()


def start(folder: Path, port: int, children: list[subprocess.Popen[bytes]]) -> None:
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    fsid, monitor_port, settings = str(uuid.uuid4()), free_port(), folder / "ceph.conf"
    settings.write_text(SETTINGS.format(fsid=fsid, monitor_port=monitor_port, folder=folder, port=port))
    common = ["-c", str(settings)]
    run(
        ["monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{monitor_port}]", str(folder / "map")]
    )
    run(["ceph-mon", *common, "-i", "a", "--mkfs", "--monmap", str(folder / "map")])
    children.append(spawn(["ceph-mon", *common, "-i", "a", "-f"]))
    store_id = str(uuid.uuid4())
    run(["ceph", *common, "--connect-timeout", "30", "osd", "new", store_id])
    run(["ceph-osd", *common, "-i", "0", "--mkfs", "--osd-uuid", store_id])
    children.append(spawn(["ceph-osd", *common, "-i", "0", "-f"]))
    wait_for(lambda: "1 up" in run(["ceph", *common, "--connect-timeout", "5", "osd", "stat"]))
    children.append(spawn(["radosgw", *common, "-n", "client.rgw", "-f"]))
    wait_for(lambda: answers(port))
    keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]
    run(["radosgw-admin", *common, "-n", "client.rgw", "user", "create", "--uid", "test", "--display-name", "t", *keys])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr[-2000:]}")
    return done.stdout


def spawn(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(condition: Callable[[], bool], limit_s: float = 120) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"the server did not come up within {limit_s} s")
        time.sleep(0.25)


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


if __name__ == "__main__":
    if missing_programs():
        raise SystemExit(f"not installed: {', '.join(missing_programs())}")
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]))
