"""Low-rank training of an encoder: little changes, it can be resumed, and the result is an ordinary network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.model.config import SamConfig
from engine.model.sam import Sam
from engine.training.initialise import fresh_sam
from engine.training.low_rank import add_low_rank
from engine.training.peers import Peers
from engine.training.scene_bank import SceneBank
from engine.training.sources import WindowConfig
from engine.training.train import Phase, TrainConfig, train
from tests.engine.training.tiny import TINY_BANK, TINY_SAM, TINY_TRAINING, TINY_VIT, square_scenes

RANK = 2
LOW_RANK = replace(
    TINY_TRAINING,
    phases=(Phase(until_fraction=1.0, window=WindowConfig(side_px=64)),),
    total_steps=3,
    trains_encoder=False,
    optimizer="adamw",
    lora_rank=RANK,
)


def random_sam(network: SamConfig) -> Sam:
    """A network whose attention counts: in a fresh one its output is zero."""
    sam, generator = fresh_sam(network, seed=5), torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in sam.image_encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return sam


def train_low_rank(folder: Path, network: SamConfig, config: TrainConfig) -> tuple[Sam, Sam]:
    torch.set_num_threads(1)
    sam = random_sam(network)
    return sam, train(config, sam, SceneBank(folder / "bank", TINY_BANK, square_scenes), folder, peers=Peers())


@pytest.mark.parametrize("network", [TINY_SAM, TINY_VIT], ids=["hybrid", "vit"])
def test_only_the_projections_of_the_encoder_change_and_by_no_more_than_the_rank(
    tmp_path: Path, network: SamConfig
) -> None:
    before = random_sam(network).state_dict()
    for trained in train_low_rank(tmp_path, network, LOW_RANK):
        after = trained.state_dict()
        assert after.keys() == before.keys()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        projections = {name for name in changed if name.startswith("image_encoder.")}
        assert projections
        assert all(name.endswith("qkv.weight") for name in projections)
        assert changed - projections, "the decoder is trained too"
        for name in projections:
            change = (after[name] - before[name]).double()
            assert torch.linalg.matrix_rank(change, atol=1e-5 * float(change.norm())) <= RANK
        assert all(parameter.is_leaf for parameter in trained.parameters())


def test_a_low_rank_training_that_stops_and_goes_on_equals_one_left_alone(tmp_path: Path) -> None:
    _, whole = train_low_rank(tmp_path / "whole", TINY_VIT, LOW_RANK)

    class Stopped(Exception):
        """End of the first part of the training."""

    def stop(step: int, scores: object) -> None:
        if step == 1:
            raise Stopped

    folder = tmp_path / "parts"
    bank = SceneBank(folder / "bank", TINY_BANK, square_scenes)
    with pytest.raises(Stopped):
        train(LOW_RANK, random_sam(TINY_VIT), bank, folder, on_step=stop)
    _, resumed = train_low_rank(folder, TINY_VIT, LOW_RANK)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_what_cannot_be_trained_so_is_refused() -> None:
    with pytest.raises(ValueError, match="lora_rank 4, trains_encoder True: expected a rank"):
        replace(TINY_TRAINING, lora_rank=4)
    with pytest.raises(ValueError, match="lora_rank 32: expected less than 32"):
        add_low_rank(fresh_sam(TINY_VIT, seed=5).image_encoder, 32, seed=0)
    with pytest.raises(ValueError, match="got a Sequential, which has no qkv projections"):
        add_low_rank(nn.Sequential(nn.Linear(4, 4)), 2, seed=0)
