"""Tensors in, tensors out: the SAM model, mask generation, training and evaluation; the only package that imports torch."""
