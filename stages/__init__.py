"""The stages of the data engine: ingest, fully automatic, and the Ray actors that run it."""
