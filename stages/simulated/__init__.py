"""Simulated annotators, who work over the real HTTP interface from ground truth; their seconds are simulated."""
