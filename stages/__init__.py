"""The stages of the data engine: ingest, fully automatic (also on a Ray cluster) and training on a snapshot."""
