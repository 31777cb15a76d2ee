"""Formats of other tools: their labels become masks of a dataset, and a snapshot becomes their files."""
