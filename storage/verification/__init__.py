"""Checking a dataset from outside: files, records, objects, tables and snapshots, compared with one another."""
