"""Check of a release by its files alone."""
