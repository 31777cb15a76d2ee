"""Procedural scenes with exact, nested masks: training data that needs no photos and no licences of photos."""
