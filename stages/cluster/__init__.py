"""Cluster: runs a plan of mask shards on Ray actors."""
