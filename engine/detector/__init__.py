"""The generic "object" detector: a small head on a SAM's image embedding that proposes boxes of any object."""
