"""Schedules of `gigamask serve`: which flow is due when, each once, and the Prefect server that starts it."""
