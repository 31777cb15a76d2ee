"""The experiments of "Segment Anything", section 7, each a command that prints one table beside published figures."""
