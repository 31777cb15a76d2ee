"""Stores for the dataset's bytes: a local folder or S3, with one interface of objects by key."""
