"""The `gigamask` command, one file for each group of commands."""
