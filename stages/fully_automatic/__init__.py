"""The fully automatic stage: image shards in, mask shards out. Plain Python, no Ray."""
