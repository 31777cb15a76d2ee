"""One file for each change of the schema; a released file never changes."""
