"""Training of the seed model that ships with the package, on two CPU cores or on a GPU.

gigamask train-seed FOLDER                  train, or train further, in FOLDER; scenes go to FOLDER/bank
gigamask train-seed FOLDER --photos PHOTOS  train with labelled images among the scenes
gigamask train-seed FOLDER --fill 500       only make the first 500 chunks of scenes (beside a training)
gigamask train-seed FOLDER --device cuda    train by the same recipe on a GPU
gigamask train-seed FOLDER --device cuda --recipe gpu     train the network that ships

A machine that has torch, numpy and OpenCV alone does not have this command and calls the functions:

python -c "from engine.training.seed import train_seed; train_seed('FOLDER', device='cuda')"
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from engine.device import best_device
from engine.labelled import LabelledImage, load_folder
from engine.model.config import HybridConfig, SamConfig
from engine.model.sam import PIXEL_MEAN, PIXEL_STD
from engine.scenes.batch import SceneBatch
from engine.scenes.scene_generator import generate_scenes
from engine.training.batches import BatchConfig
from engine.training.initialise import fresh_sam
from engine.training.peers import Peers, check_device, run_with_peers
from engine.training.photos import PhotoSource
from engine.training.progress import StepLines
from engine.training.scene_bank import BankConfig, SceneBank
from engine.training.sources import MixedSource, Source, WindowConfig
from engine.training.train import Phase, TrainConfig, train

logger = logging.getLogger(__name__)

SEED = 20_000_000
SCENE_SIDE_PX = 384
"""Side of a scene in px, larger than the model's input side, so that a window of a whole scene can also zoom out."""

SEED_SAM = SamConfig(
    image_encoder=HybridConfig(),
    input_side=320,
    embedding_stride=8,
    width=128,
    decoder_heads=4,
    decoder_mlp_width=512,
    iou_head_width=128,
)
SEED_BANK = BankConfig(seed=SEED, first_chunks=200, chunks_per_step=0.25, max_chunks=1000)
FIRST_WINDOWS = WindowConfig(side_px=128, zoom=(0.6, 1.3))
"""Windows of the first phase, in which the network learns what a click means: a hundred steps, at less than half the
cost.
"""
WINDOWS = WindowConfig(side_px=160, zoom=(0.4, 1.2), large_scale_jitter=(1.5, 6.0))
"""Windows of the second phase. On scenes they zoom out, so that half of the masks are under 1000 px, as on photos at
this input side. On photos they cover the scales of interactive use, from the whole photo at twice this side to a third
of it.
"""
WHOLE_FRAMES = WindowConfig(
    side_px=320, zoom=(0.83, 1.6), aspects=(0.667, 0.667, 0.75, 1.0), large_scale_jitter=(0.9, 4.0)
)
SEED_TRAINING = TrainConfig(
    batch=BatchConfig(seed=SEED, prompts=8, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD),
    phases=(
        Phase(until_fraction=0.13, window=FIRST_WINDOWS),
        Phase(until_fraction=0.81, window=WINDOWS, correction_fractions=(0.5, 0.2, 0.15, 0.15)),
        Phase(until_fraction=1.0, window=WHOLE_FRAMES, correction_fractions=(0.6, 0.2, 0.1, 0.1)),
    ),
    total_steps=5250,
    batch_size=12,
    warmup_steps=100,
    last_rate=0.02,
    ema_decay=0.99,
    checkpoint_every_s=60.0,
)
"""Training of a seed of half the size on two CPU cores, in less than four hours, in one piece. Weights that shipped
before took three pieces, with photos from the second on.
"""

GPU_SAM = replace(
    SEED_SAM, image_encoder=HybridConfig(widths=(32, 64, 128, 256), attention_blocks=6, attention_heads=8)
)
"""Network of the "gpu" recipe: 6.2 million parameters, 12 MB as fp16. Its decoder is the seed's, so that the automatic
generator, which waits for the decoder, stays as fast.
"""
GPU_BANK = BankConfig(seed=SEED, chunk_scenes=128, first_chunks=40, chunks_per_step=0.04, max_chunks=160)
"""Scenes of the "gpu" recipe: 15,400 after 2,000 steps, 11 GB. An H200 makes 380 a second in chunks of this size."""
GPU_TRAINING = TrainConfig(
    batch=BatchConfig(seed=SEED, prompts=12, pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD),
    phases=(
        Phase(until_fraction=0.1, window=FIRST_WINDOWS),
        Phase(until_fraction=0.33, window=replace(WINDOWS, side_px=192), correction_fractions=(0.6, 0.2, 0.12, 0.08)),
        Phase(
            until_fraction=0.73,
            window=WindowConfig(side_px=256, zoom=(0.35, 1.3)),
            correction_fractions=(0.4, 0.25, 0.2, 0.15),
        ),
        Phase(until_fraction=1.0, window=WHOLE_FRAMES, correction_fractions=(0.4, 0.25, 0.2, 0.15)),
    ),
    total_steps=2000,
    batch_size=64,
    warmup_steps=200,
    last_rate=0.02,
    ema_decay=0.999,
    checkpoint_every_s=60.0,
)
"""Training of the shipped weights, in five minutes on an H200. Its schedule followed the clock (see the
card); these are the steps it came to.
"""


@dataclass(frozen=True, kw_only=True)
class SeedRecipe:
    """Recipe of a seed model: a network, its scenes and its training."""

    sam: SamConfig
    bank: BankConfig
    training: TrainConfig
    photo_fraction: float = 0.2
    """Fraction of training images that are photos, where photos are given."""


SEED_RECIPES = {
    "cpu": SeedRecipe(sam=SEED_SAM, bank=SEED_BANK, training=SEED_TRAINING),
    "gpu": SeedRecipe(sam=GPU_SAM, bank=GPU_BANK, training=GPU_TRAINING, photo_fraction=0.15),
}


def train_seed(
    folder: str | Path,
    *,
    photos: Sequence[str | Path] = (),
    bank: str | Path | None = None,
    recipe: str = "cpu",
    device: str | None = None,
    processes: int | None = None,
    data_workers: int | None = None,
    steps: int | None = None,
) -> None:
    """Train the seed model in `folder`, or continue from the checkpoint there; the same call resumes after a kill.

    Args:
        folder: where the checkpoint and the history are kept.
        photos: folders of labelled images (`engine.labelled`); images with even ids train. Empty: scenes alone.
        bank: where scenes are kept; None: `folder`/bank.
        recipe: a name of `SEED_RECIPES`.
        device: "cpu" or "cuda"; None: "cuda" where there is a GPU.
        processes: number of processes that share every batch; None: two with one thread each on a CPU, one on a GPU.
        data_workers: number of processes that make batches; None: none for a CPU, all cores but one for a GPU.
        steps: length of the training; None: the recipe's.

    Raises:
        ValueError: The recipe or device is unknown, a folder of photos has no labelled image, or `folder` holds the
            checkpoint of another network.
    """
    device = device or best_device()
    check_device(device, processes or 1)
    chosen = _find_recipe(recipe)
    on_gpu = device == "cuda"
    processes = processes or (1 if on_gpu else 2)
    if data_workers is None:
        data_workers = max(1, ((os.cpu_count() or 2) - 1) // processes) if on_gpu else 0
    training = replace(chosen.training, total_steps=steps or chosen.training.total_steps, data_workers=data_workers)
    work = partial(
        _train_as_peer,
        replace(chosen, training=training),
        Path(folder),
        _bank_folder(folder, bank),
        [Path(each) for each in photos],
    )
    torch.set_num_threads(1)
    run_with_peers(processes, work, device)


def fill_bank(
    folder: str | Path,
    chunks: int,
    *,
    bank: str | Path | None = None,
    recipe: str = "cpu",
    device: str | None = None,
) -> None:
    """Make those of the first `chunks` chunks of scenes that are missing, in order; this may run beside a training.

    Args:
        folder: the training's folder.
        chunks: number of chunks that exist afterwards.
        bank: where scenes are kept; None: `folder`/bank.
        recipe: a name of `SEED_RECIPES`.
        device: "cpu" or "cuda"; None: "cuda" where there is a GPU.

    Raises:
        ValueError: The recipe or device is unknown.
    """
    device = device or best_device()
    check_device(device, 1)
    chosen = _find_recipe(recipe)
    _log_to_stderr()
    torch.set_num_threads(1)
    scenes = SceneBank(_bank_folder(folder, bank), chosen.bank, partial(make_scenes, device=device))
    for number in range(chunks):
        if not scenes.has(number):
            started = time.monotonic()
            scenes.make(number)
            rate = chosen.bank.chunk_scenes / (time.monotonic() - started)
            logger.info("chunk %d: %.1f scenes/s", number, rate)


def make_scenes(seed: int, count: int, device: str = "cpu") -> SceneBatch:
    """Make `count` scenes for the seed model on `device`; CPU and GPU make different scenes from the same `seed`."""
    return generate_scenes(count, SCENE_SIDE_PX, torch.Generator().manual_seed(seed), device)


def training_images(folders: Sequence[Path]) -> list[LabelledImage]:
    """Load the labelled images with even ids for training; images with odd ids are kept for evaluation."""
    return [image for folder in folders for image in load_folder(folder) if image.image_id % 2 == 0]


def _train_as_peer(recipe: SeedRecipe, folder: Path, bank_folder: Path, photos: Sequence[Path], peers: Peers) -> None:
    """Train as one of several processes that share every batch."""
    _log_to_stderr()
    if peers.device != "cpu":
        torch.set_float32_matmul_precision("high")  # TensorFloat-32 for the products that bfloat16 does not do
    config = recipe.training
    sam = fresh_sam(recipe.sam, SEED)
    bank = SceneBank(bank_folder, recipe.bank, partial(make_scenes, device=peers.device))
    source: Source = bank
    if photos:
        fraction = recipe.photo_fraction
        source = MixedSource([(bank, 1 - fraction), (PhotoSource(training_images(photos)), fraction)])
    train(config, sam, source, folder, peers=peers, on_step=StepLines(config, logger.info) if peers.rank == 0 else None)


def _find_recipe(name: str) -> SeedRecipe:
    if name not in SEED_RECIPES:
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(SEED_RECIPES)}")
    return SEED_RECIPES[name]


def _bank_folder(folder: str | Path, bank: str | Path | None) -> Path:
    return Path(folder) / "bank" if bank is None else Path(bank)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
