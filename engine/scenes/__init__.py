"""Procedural scenes with exact, nested masks: training data that needs no licence."""
