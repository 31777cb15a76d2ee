"""File formats: tar shards, SA-1B annotation files, and the dataset's JSON documents with their schemas."""
