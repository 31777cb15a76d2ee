"""Evaluation of models, shown as tables and as an HTML page."""
