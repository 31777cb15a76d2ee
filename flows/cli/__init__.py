"""The gigamask command."""
