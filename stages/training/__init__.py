"""A training job on a dataset's snapshot."""
