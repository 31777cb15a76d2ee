"""Weights files with a card beside them: read, checked and written in the same way for every kind of network.

Weights are `<stem>.safetensors` (parameters as fp16, buffers unchanged); the card is `<stem>.json`, which also holds
the SHA-256 of the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from storage.objects.atomic import replace_file


def write_network(path: Path, network: nn.Module, card: Mapping[str, Any]) -> str:
    """Write the weights of a network and its card, and return the SHA-256 of the weights file.

    Each file appears complete or not at all, and the same weights give the same bytes.

    Raises:
        ValueError: `path` does not end in .safetensors, or a weight is not finite in fp16.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a path ending in .safetensors")

    # Serialise
    parameters = dict(network.named_parameters())
    state = {
        name: (value.half() if name in parameters else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    check_finite(path, state)
    data = safetensors.torch.save(state)
    sha256 = hashlib.sha256(data).hexdigest()

    # Write both files
    sidecar = json.dumps({"weights_sha256": sha256} | dict(card), indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda file: file.write(data))
    replace_file(path.with_suffix(".json"), lambda file: file.write(sidecar.encode()))
    return sha256


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        ValueError: The file is not a whole safetensors file.
    """
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error


def fill_network(path: Path, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network the weights of a file, in float32; the network may be on the device "meta".

    Raises:
        ValueError: A parameter is missing, unknown, of another shape or not finite.
    """
    _check_names_and_shapes(path, network.state_dict(), state)
    check_finite(path, state)
    values = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    network.load_state_dict(values, strict=True, assign=True)


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Check that all values are finite.

    Raises:
        ValueError: A tensor holds a value that is not finite.
    """
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"{path}: {len(broken)} tensors hold values that are not finite, the first is {broken[0]}")


def _check_names_and_shapes(path: Path, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    wrong = [f"{name} is missing" for name in expected if name not in got]
    wrong += [f"{name} is not part of the network" for name in got if name not in expected]
    wrong += [
        f"{name} is {list(got[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in got and got[name].shape != expected[name].shape
    ]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path}: the weights do not fit the network: {'; '.join(wrong[:3])}{rest}")
