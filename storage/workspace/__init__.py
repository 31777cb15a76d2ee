"""Relational state of annotation: users, rounds, tasks, leases, operations, submissions and verdicts."""
