"""Prefect flows, the `gigamask` command, its settings, the report and the evaluation pages."""
