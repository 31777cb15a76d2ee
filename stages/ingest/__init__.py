"""Ingest: photos become image shards."""
