"""Fully automatic stage: it masks the images of image shards and commits mask shards. Plain Python, no Ray."""
