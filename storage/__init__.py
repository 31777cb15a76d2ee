"""Bytes, records and tables: stores, shards, commits, datasets and queries; imports no torch, Ray or Prefect."""
