"""Training a model further on a dataset's snapshot."""
