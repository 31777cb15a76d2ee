"""A plan of shards on Ray actors."""
