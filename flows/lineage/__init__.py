"""The drawn lineage of a mask, a model or a snapshot."""
