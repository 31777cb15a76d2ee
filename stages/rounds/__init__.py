"""Rounds of annotation: which images people see, and how their answers become masks of the dataset."""
