"""Where tensors are computed unless told otherwise."""

import torch


def best_device() -> str:
    """Choose "cuda" where there is such a device, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
