"""The `gigamask` command with a way of sabotage.py installed: `... KIND loop --data FOLDER`; "" breaks nothing."""

import sys

from flows.cli import environment

environment.prepare()

from flows.cli import main as cli  # noqa: E402
from tests.faults.loop import sabotage  # noqa: E402

if __name__ == "__main__":
    if kind := sys.argv.pop(1):
        sabotage.KINDS[kind](setattr)
    cli.main()
