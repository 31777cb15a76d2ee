"""Where tensors are computed unless told otherwise."""

import torch


def best_device() -> str:
    """Choose "cuda" if a CUDA device is available, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
