"""`python -m flows.cli` is the `gigamask` command."""

from flows.cli.main import main

main()
