"""Environment variables of a command; they are set before any library is imported."""

import io
import os
import sys
from collections.abc import MutableMapping

from flows.orchestration import PREFECT_URL, use_prefect

DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command prints errors itself, once, in a line
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
    "PYTHONSAFEPATH": "1",  # what is in the current folder is data, for the processes of this command as well
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning beside other work made two threads 9 times slower than one
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ray's own handler aborts the process on SIGTERM, in place of ours, which ends a command in one line
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that no proxy is asked for: the servers that a command starts on this machine."""


def prepare() -> None:
    """Set the environment variables for Prefect and Ray; a value that the user exported stays."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    except_loopback(os.environ)
    use_prefect(os.environ.get(PREFECT_URL))
    os.environ["MPLBACKEND"] = "agg"  # plots go into files; a notebook's own backend may not be installed here
    os.environ.pop("PYTHONOPTIMIZE", None)  # Ray's own processes do not start without docstrings
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal lacks is no reason to end
            stream.reconfigure(errors="backslashreplace")


def except_loopback(environment: MutableMapping[str, str]) -> None:
    """Add the hosts of this machine to those that no proxy is asked for.

    Both spellings of the variable get the hosts of both: libraries read one or the other, and users set only one.
    """
    spellings = ("no_proxy", "NO_PROXY")
    given = ",".join(environment.get(name, "") for name in spellings)
    hosts = list(dict.fromkeys([*filter(None, map(str.strip, given.split(","))), *LOOPBACK]))
    for name in spellings:
        environment[name] = "*" if "*" in hosts else ",".join(hosts)  # urllib knows the star only where it stands alone
