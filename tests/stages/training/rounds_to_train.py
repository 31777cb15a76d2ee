"""A dataset whose promoted model is a tiny network, with closed rounds to train it on."""

from pathlib import Path

import torch

from engine.model.weights import save_model
from engine.training.initialise import fresh_sam
from stages.rounds.close import close_round
from storage.dataset import Dataset
from storage.model_versions import CARD_NAME, WEIGHTS_NAME
from storage.protocol.promotions import Decided, Decision
from storage.workspace.workspace import Workspace
from tests.engine.training.tiny import TINY_SAM
from tests.small_dataset import small_dataset
from tests.stages.rounds.answering import answer_all, image_ids, small_round
from tests.tiny_network import tiny_card


def dataset_with_a_round(folder: Path, workspace: Workspace) -> Dataset:
    """Make a dataset of ten images, promote a tiny network, and close a round over six images."""
    torch.set_num_threads(1)
    opened = small_dataset(folder / "dataset")
    opened.fold()
    (folder / "tiny").mkdir()
    files = {name: folder / "tiny" / name for name in (WEIGHTS_NAME, CARD_NAME)}
    model_id = save_model(files[WEIGHTS_NAME], fresh_sam(TINY_SAM, 5).eval(), tiny_card(TINY_SAM))
    opened.models.publish(model_id, files)
    begin = Decided(decision=Decision.START, model_id=model_id, over="", key="start", made_by="test", reason="test")
    opened.promotions.add(begin)
    close_new_round(opened, workspace, image_ids(opened)[:6])
    return opened


def close_new_round(dataset: Dataset, workspace: Workspace, ids: list[int]) -> str:
    """Close a round over some images, with two masks each, and return its id."""
    opened = small_round(workspace, ids)
    answer_all(workspace, "ann", squares=2)
    close_round(dataset, workspace, opened.round_id)
    return opened.round_id
