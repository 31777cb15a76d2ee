"""Environment variables for Prefect and Ray; the command sets them before it imports either library."""

import os

DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",  # no server set up: Prefect starts its own for the run
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 12-15 s on a new database, more on a busy laptop
    "PREFECT_SERVER_API_MAX_PARAMETER_SIZE": str(64 << 20),  # bytes; 7,000 photos by name took more than its 512 KiB
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command prints errors itself, once, in a line
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning beside other work made two threads 9 times slower than one
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ray's own handler aborts the process on SIGTERM, in place of ours, which ends a command in one line
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}


def prepare() -> None:
    """Set the environment variables for Prefect and Ray; a value that the user exported stays."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
