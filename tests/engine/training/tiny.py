"""A training small enough for tests: squares on a plain ground, a network of some ten thousand weights.

Run as a program it trains in a folder, one line per step, so that a test can kill it in between:

    python tests/engine/training/tiny.py FOLDER STEPS
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from engine.model.config import HybridConfig, SamConfig, VitConfig
from engine.model.sam import PIXEL_MEAN, PIXEL_STD
from engine.scenes.batch import SceneBatch
from engine.training.batches import Batch, BatchConfig
from engine.training.initialise import fresh_sam
from engine.training.peers import Peers, run_with_peers
from engine.training.scene_bank import BankConfig, SceneBank
from engine.training.sources import WindowConfig
from engine.training.train import Phase, TrainConfig, train

TINY_SAM = SamConfig(
    image_encoder=HybridConfig(
        widths=(8, 8, 16, 16), residual_blocks=1, attention_blocks=1, attention_heads=2, mlp_ratio=2
    ),
    input_side=64,
    embedding_stride=8,
    width=32,
    mask_prompt_channels=4,
    decoder_heads=2,
    decoder_mlp_width=32,
    iou_head_width=16,
)
TINY_VIT = replace(
    TINY_SAM,
    image_encoder=VitConfig(width=32, depth=3, heads=2, global_blocks=(2,), window_side=2),
    embedding_stride=16,
)
TINY_BANK = BankConfig(seed=3, chunk_scenes=4, first_chunks=2, chunks_per_step=0.5, max_chunks=6)
TINY_TRAINING = TrainConfig(
    batch=BatchConfig(seed=7, prompts=4, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD),
    phases=(
        Phase(until_fraction=0.5, window=WindowConfig(side_px=32, zoom=(0.8, 1.2))),
        Phase(
            until_fraction=1.0,
            window=WindowConfig(side_px=64, zoom=(1.0, 1.2), aspects=(0.75, 1.0)),
            correction_fractions=(0.0, 0.5, 0.5),
        ),
    ),
    total_steps=8,
    batch_size=4,
    warmup_steps=2,
    checkpoint_every_s=0.0,
)


def square_scenes(seed: int, count: int) -> SceneBatch:
    """Scenes of 64 px: ground (leaf 0), a square (leaf 1) and a part on it (leaf 2), both of one whole."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((count, 64, 64), np.int32)
    images = np.zeros((count, 64, 64, 3), np.uint8)
    for scene in range(count):
        top, left = rng.integers(4, 24, 2)
        ids[scene, top : top + 32, left : left + 32] = 1
        ids[scene, top + 8 : top + 24, left + 8 : left + 24] = 2
        images[scene] = rng.integers(0, 256, (3, 3), np.uint8)[ids[scene]]
    tree = torch.tensor([[0, 1, 2]] * count, dtype=torch.int32)
    return SceneBatch(
        images_B3HW=torch.from_numpy(images).permute(0, 3, 1, 2),
        ids_BHW=torch.from_numpy(ids),
        part_BL=tree,
        whole_BL=tree.clamp(max=1),
        leaves_B=torch.full((count,), 3, dtype=torch.int32),
    )


def assert_equal_batches(a: Batch, b: Batch) -> None:
    """Fail unless two batches hold the same numbers."""
    for name, tensor in vars(a).items():
        assert torch.equal(tensor, vars(b)[name]), name


def train_tiny(folder: Path, config: TrainConfig, peers: Peers, *, talks: bool = False) -> None:
    """Train in `folder`, with the scenes beside the checkpoint."""
    torch.set_num_threads(1)
    bank = SceneBank(folder / "bank", TINY_BANK, square_scenes)
    sam = fresh_sam(TINY_SAM, seed=5)
    train(config, sam, bank, folder, peers=peers, on_step=(lambda step, _: print(step, flush=True)) if talks else None)


if __name__ == "__main__":
    settings = replace(TINY_TRAINING, total_steps=int(sys.argv[2]))
    run_with_peers(1, partial(train_tiny, Path(sys.argv[1]), settings, talks=True))
