"""The demo: one photo at a time, clicks, boxes and everything; nothing is stored, and nobody logs in."""
