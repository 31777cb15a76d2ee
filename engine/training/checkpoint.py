"""Checkpoint that a training resumes from: one file, replaced atomically, with the history of the steps beside it."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.model.config import SamConfig
from engine.model.sam import Sam
from storage.objects.atomic import replace_file

STATE_NAME = "state.pt"
HISTORY_NAME = "history.jsonl"
HISTORY_FIELDS = ("loss", "best_iou", "chosen_iou", "iou_error", "corrected_iou")


@dataclass(kw_only=True)
class TrainState:
    """State of a training: everything that a step changes."""

    step: int
    """Number of the next step."""
    model: Sam
    ema: Sam
    optimizers: tuple[torch.optim.Optimizer, ...]


def save_state(folder: Path, state: TrainState) -> None:
    """Write the state atomically: at every moment the folder holds the complete old or the complete new state."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "step": state.step,
        "sam": json.dumps(state.model.config.to_json()),
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
    }
    replace_file(folder / STATE_NAME, lambda file: torch.save(content, file))


def load_state(folder: Path, state: TrainState) -> bool:
    """Load the folder's checkpoint into `state`; return False when the folder has none.

    Raises:
        ValueError: The checkpoint belongs to a network of other sizes, or to other optimizers.
    """
    path = folder / STATE_NAME
    if not path.exists():
        return False
    content = torch.load(path, map_location="cpu", weights_only=True)
    if json.loads(content["sam"]) != json.loads(json.dumps(state.model.config.to_json())):
        raise ValueError(
            f"{path} was trained with other sizes than asked for: {content['sam']}; train into another folder"
        )
    state.step = content["step"]
    state.model.load_state_dict(content["model"])
    state.ema.load_state_dict(content["ema"])
    try:
        for optimizer, saved in zip(state.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    except ValueError as error:
        raise ValueError(
            f"{path} was trained with another optimizer or layer decay than asked for ({error}); "
            "train into another folder"
        ) from error
    return True


class History:
    """History of a training: one JSON line per step, written together with the checkpoint.

    A training that resumes from the checkpoint therefore never writes a line twice.
    """

    def __init__(self, folder: Path, *, from_step: int, writes: bool) -> None:
        """Open the history.

        Args:
            folder: the training's folder.
            from_step: the first step of the training that continues; lines of this step and later ones, left by a
                killed training, are dropped.
            writes: whether this process writes the history.
        """
        self._path = folder / HISTORY_NAME
        self._writes = writes
        self._pending: list[tuple[int, Tensor, float]] = []
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_lines(self._path) if json.loads(line)["step"] < from_step]
            self._path.write_text("".join(f"{line}\n" for line in kept))

    def add(self, step: int, scores_5: Tensor, learning_rate: float) -> None:
        """Keep a step's scores, in the order of `HISTORY_FIELDS`, until `flush`; do not wait for a GPU."""
        if self._writes:
            self._pending.append((step, scores_5, learning_rate))

    def flush(self) -> None:
        """Append the steps added since the last flush."""
        if self._pending:
            with self._path.open("a") as file:
                file.writelines(f"{_line(*entry)}\n" for entry in self._pending)
        self._pending.clear()


def _line(step: int, scores_5: Tensor, learning_rate: float) -> str:
    numbers = dict(zip(HISTORY_FIELDS, (round(score, 5) for score in scores_5.tolist()), strict=True))
    return json.dumps({"step": step, **numbers, "learning_rate": learning_rate})


def read_lines(path: Path) -> list[str]:
    """Read the complete lines of a history; leave out a last line that a kill cut short."""
    if not path.exists():
        return []
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines()


def load_average(folder: Path) -> tuple[Sam, int]:
    """Load the moving average of the weights from a checkpoint.

    Returns:
        A network in evaluation mode with these weights, and the number of training steps behind the checkpoint.

    Raises:
        ValueError: The folder holds no checkpoint.
    """
    path = folder / STATE_NAME
    if not path.exists():
        raise ValueError(f"{folder} holds no {STATE_NAME}: train there first")
    content = torch.load(path, map_location="cpu", weights_only=True)
    sam = Sam(SamConfig.from_json(json.loads(content["sam"]))).eval()
    sam.load_state_dict(content["ema"])
    return sam, content["step"]


def read_history(folder: Path) -> list[dict[str, float]]:
    """Read the scores of every step that the folder's history holds."""
    return [json.loads(line) for line in read_lines(folder / HISTORY_NAME)]
