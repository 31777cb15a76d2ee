"""Measuring a model against ground truth: simulated clicks, automatic masks, scores, baselines."""
