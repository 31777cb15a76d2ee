"""Prefect flows, one file each, and around them the `gigamask` command, settings, report and evaluation pages."""
