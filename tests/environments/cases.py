"""Environments as people have them: what each changes, and which commands may say no there, with which words."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

COMMANDS = ("run", "query", "train", "doctor")
STRANGER = 54321
"""User id that no passwd file has."""
NAMESPACE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One environment, made in a fresh folder in which the commands then run."""

    name: str
    variables: Mapping[str, str | None] = field(default_factory=dict)
    """Environment variables to set; None removes one. `{cwd}` is the folder, `{root}` the source tree."""
    prefix: Sequence[str] = ()
    """Command that gets the command as its arguments, such as `setpriv`."""
    prepare: Callable[[Path], None] = lambda _: None
    """Function that fills the folder."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Words of the one error, by the command that cannot work there; `*` stands for every other command."""
    needs_root: bool = False

    def words(self, command: str) -> str | None:
        """Return the words of the error that is expected; None where the command works."""
        return self.refused.get(command, self.refused.get("*"))


def in_mounts(script: str) -> tuple[str, ...]:
    """Make a prefix that runs a script in a mount namespace of its own before the command."""
    return (*NAMESPACE, f'{script} && exec "$@"', "sh")


def limited(option: str) -> tuple[str, ...]:
    """Make a prefix that sets a limit of the shell."""
    return ("sh", "-c", f'ulimit {option} && exec "$@"', "sh")


def as_stranger() -> tuple[str, ...]:
    """Make a prefix that runs the command as a user without a name, as `docker --user` does."""
    return (
        "setpriv",
        f"--reuid={STRANGER}",
        f"--regid={STRANGER}",
        "--clear-groups",
        "--inh-caps=-all,+dac_read_search",  # the interpreter may lie in root's home
        "--ambient-caps=-all,+dac_read_search",
    )


def users_code(folder: Path) -> None:
    """Write modules as vision repositories have them, each of which ends the process that imports it."""
    (folder / "storage").mkdir()
    for name in ("engine.py", "flows.py", "statistics.py", "random.py", "utils.py", "storage/__init__.py"):
        (folder / name).write_text(f"import os\nos.write(2, b'{name} of the user was imported\\n')\nos._exit(7)\n")


def users_packages(folder: Path) -> None:
    """Write packages of the same names as ours, each of which ends the process that imports it."""
    users_code(folder)
    for name in ("statistics.py", "random.py", "utils.py"):
        (folder / name).unlink()


def other_prefect(folder: Path) -> None:
    """Write a Prefect home with a profile of a dead server and a database of another version."""
    (folder / "prefect").mkdir()
    (folder / "prefect" / "prefect.db").write_bytes(b"an older database")
    (folder / "prefect" / "profiles.toml").write_text(
        'active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    )


def long_folder(folder: Path) -> None:
    (folder / ("long" * 30)).mkdir()


def accents(folder: Path) -> None:
    (folder / "Zwischenablage für Bilder é").mkdir()


def _unwritable() -> str:
    """Name a folder in which not even root can write."""
    return "/proc"


DEAD = "http://127.0.0.1:9"
ENVIRONMENTS = (
    Environment(name="as it is"),
    Environment(name="HOME unset", variables={"HOME": None}),
    Environment(name="HOME missing", variables={"HOME": "{cwd}/nobody/home"}),
    Environment(name="HOME unwritable", variables={"HOME": _unwritable()}),
    Environment(name="uid without a name, HOME=/", variables={"HOME": "/"}, prefix=as_stranger(), needs_root=True),
    Environment(
        name="uid without a name, HOME unset",
        variables={"HOME": None, "USER": None, "LOGNAME": None},
        prefix=as_stranger(),
        needs_root=True,
    ),
    Environment(
        name="proxy, no no_proxy",
        variables={"http_proxy": DEAD, "https_proxy": DEAD, "all_proxy": DEAD, "no_proxy": None, "NO_PROXY": None},
    ),
    Environment(name="PREFECT_API_URL of a dead server", variables={"PREFECT_API_URL": f"{DEAD}/api"}),
    Environment(
        name="Prefect's home of another server", variables={"PREFECT_HOME": "{cwd}/prefect"}, prepare=other_prefect
    ),
    Environment(
        name="GIGAMASK_PREFECT_URL of a dead server",
        variables={"GIGAMASK_PREFECT_URL": f"{DEAD}/api"},
        refused={"run": "no Prefect server answers"},
    ),
    Environment(name="folder with engine.py, storage/", prepare=users_code),
    Environment(
        name="PYTHONPATH=. with engine.py, storage/",
        variables={"PYTHONPATH": "{cwd}:{root}"},
        prepare=users_packages,
    ),
    Environment(
        name="TMPDIR too long for sockets", variables={"TMPDIR": f"{{cwd}}/{'long' * 30}"}, prepare=long_folder
    ),
    Environment(name="TMPDIR with accents", variables={"TMPDIR": "{cwd}/Zwischenablage für Bilder é"}, prepare=accents),
    Environment(name="TMPDIR missing", variables={"TMPDIR": "{cwd}/absent"}),
    Environment(name="TMPDIR unwritable", variables={"TMPDIR": _unwritable()}),
    Environment(
        name="no folder for temporary files",
        variables={"TMPDIR": None},
        prefix=in_mounts(
            "for each in /tmp /var/tmp /usr/tmp; do test ! -d $each || mount -t tmpfs -o ro none $each; done"
        ),
        needs_root=True,  # Python then takes the current folder
    ),
    Environment(name="locale C", variables={"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0"}),
    Environment(
        name="locale POSIX, no UTF-8 mode",
        variables={"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ),
    Environment(name="output in Latin 1", variables={"PYTHONIOENCODING": "latin-1"}),
    Environment(name="output in ASCII", variables={"PYTHONIOENCODING": "ascii"}),
    Environment(name="64 open files", prefix=limited("-n 64")),
    Environment(name="256 open files", prefix=limited("-n 256")),
    Environment(name="4 GiB of addresses", prefix=limited("-v 4194304")),
    Environment(
        name="3 GiB of addresses", prefix=limited("-v 3145728"), refused={"run": "ulimit -v", "train": "ulimit -v"}
    ),
    Environment(
        name="/dev/shm of 64 MiB",
        prefix=in_mounts("mount -t tmpfs -o size=64m none /dev/shm"),
        needs_root=True,
    ),
    Environment(name="/dev/shm unwritable", prefix=in_mounts("mount -t tmpfs -o ro none /dev/shm"), needs_root=True),
    Environment(
        name="read-only installation",
        prefix=in_mounts('mount --bind "$GIGAMASK_ROOT" "$GIGAMASK_ROOT" && mount -o remount,ro,bind "$GIGAMASK_ROOT"'),
        variables={"HOME": _unwritable()},
        needs_root=True,
    ),
    Environment(
        name="no network but loopback",
        prefix=("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
        needs_root=True,
    ),
    Environment(name="clock two years behind", variables={"LD_PRELOAD": "{clock}", "CLOCK_SHIFT_S": "-63072000"}),
    Environment(name="clock ten years ahead", variables={"LD_PRELOAD": "{clock}", "CLOCK_SHIFT_S": "315360000"}),
    Environment(name="PYTHONOPTIMIZE=2", variables={"PYTHONOPTIMIZE": "2"}),
    Environment(name="PYTHONWARNINGS=error", variables={"PYTHONWARNINGS": "error"}),
    Environment(
        name="PYTHONSTARTUP, PYTHONSAFEPATH", variables={"PYTHONSTARTUP": "{cwd}/none.py", "PYTHONSAFEPATH": "1"}
    ),
    Environment(name="OMP_NUM_THREADS=0", variables={"OMP_NUM_THREADS": "0"}),
    Environment(name="OMP_NUM_THREADS=4,2", variables={"OMP_NUM_THREADS": "4,2"}),
    Environment(name="RAY_ADDRESS of a dead cluster", variables={"RAY_ADDRESS": "127.0.0.1:9"}),
    Environment(
        name="AWS variables of nowhere",
        variables={"AWS_PROFILE": "absent", "AWS_ENDPOINT_URL": "nonsense", "AWS_REGION": ""},
    ),
    Environment(name="COLUMNS=0, TERM=dumb", variables={"COLUMNS": "0", "LINES": "0", "TERM": "dumb"}),
    Environment(name="MPLBACKEND of a notebook", variables={"MPLBACKEND": "module://matplotlib_inline.backend_inline"}),
    Environment(name="no GPU by CUDA_VISIBLE_DEVICES", variables={"CUDA_VISIBLE_DEVICES": "abc"}),
    Environment(name="stdin closed", prefix=("sh", "-c", 'exec "$@" <&-', "sh")),
    Environment(name="umask 077", prefix=("sh", "-c", 'umask 077; exec "$@"', "sh")),
)


def variables_of(environment: Environment, cwd: Path, root: Path, clock: Path) -> dict[str, str]:
    """Return all environment variables of a command in an environment."""
    found = {**os.environ, "PYTHONPATH": str(root), "GIGAMASK_ROOT": str(root)}
    for name, value in environment.variables.items():
        found.pop(name, None)
        if value is not None:
            found[name] = value.format(cwd=cwd, root=root, clock=clock)
    return found
