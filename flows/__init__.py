"""Prefect flows, configuration, the report and the gigamask command; the only package that imports prefect."""
