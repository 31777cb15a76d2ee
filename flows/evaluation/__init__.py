"""The evaluation of models as tables and an HTML page."""
