"""Tensors in, tensors out: SAM, mask generation, training and evaluation; the only package that imports torch."""
