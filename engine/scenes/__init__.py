"""Procedural scenes with exact, nested masks: training data without photos and their licences."""
