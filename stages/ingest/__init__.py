"""Photos in, image shards out."""
