"""Training data, prompt simulation, losses and the training loop."""
