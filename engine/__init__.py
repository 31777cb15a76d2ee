"""The SAM network and everything on tensors: kernels, mask generation, prompts, training, evaluation, scenes."""
