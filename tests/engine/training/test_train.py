"""The training loop: it learns, resumes exactly after a kill, and gives every process the same weights."""

import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch

from engine.prompts import Prompts
from engine.training.batches import Batch, make_batch
from engine.training.checkpoint import STATE_NAME, History, load_average, read_history
from engine.training.initialise import fresh_sam
from engine.training.peers import Peers, run_with_peers
from engine.training.scene_bank import SceneBank
from engine.training.sources import WindowConfig
from engine.training.step import decode_window, encode_prompts
from engine.training.train import Phase, TrainConfig, draw_step, learn_from, train, vit_encoder
from tests.engine.training.tiny import TINY_BANK, TINY_SAM, TINY_TRAINING, TINY_VIT, square_scenes, train_tiny
from tests.paths import ROOT

STEPS = 14


def start(folder: Path) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("tiny.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(program), str(folder), str(STEPS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def flatten(value: object, name: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{name}/{key}").items()}
    if isinstance(value, list):
        return {k: v for number, item in enumerate(value) for k, v in flatten(item, f"{name}/{number}").items()}
    return {name: value}


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_a_step_and_resumed_equals_one_left_alone(tmp_path: Path) -> None:
    undisturbed = start(tmp_path / "undisturbed")
    assert undisturbed.wait(timeout=240) == 0

    killed_at = []
    for stop_after in (2, 8):
        process = start(tmp_path / "killed")
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= stop_after:
                break
        time.sleep(0.01)  # into the next step
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        killed_at.append(torch.load(tmp_path / "killed" / STATE_NAME, weights_only=True)["step"])
    assert 0 < killed_at[0] < killed_at[1] < STEPS, killed_at
    assert start(tmp_path / "killed").wait(timeout=240) == 0

    states = [
        flatten(torch.load(tmp_path / name / STATE_NAME, weights_only=True)) for name in ("undisturbed", "killed")
    ]
    assert states[0].keys() == states[1].keys()
    assert any("momentum" in name for name in states[0])
    assert any("exp_avg" in name for name in states[0])
    for name, value in states[0].items():
        same = torch.equal(value, states[1][name]) if isinstance(value, torch.Tensor) else value == states[1][name]
        assert same, f"{name} differs"
    assert read_history(tmp_path / "undisturbed") == read_history(tmp_path / "killed")
    assert [entry["step"] for entry in read_history(tmp_path / "killed")] == list(range(STEPS))


def test_a_process_that_writes_no_history_keeps_no_scores(tmp_path: Path) -> None:
    history = History(tmp_path, from_step=0, writes=False)
    scores = torch.zeros(5)
    kept = weakref.ref(scores)
    history.add(0, scores, 1e-3)
    del scores
    assert kept() is None


@pytest.mark.slow
def test_a_tiny_network_learns_its_scenes(tmp_path: Path) -> None:
    config = replace(
        TINY_TRAINING,
        total_steps=150,
        warmup_steps=10,
        checkpoint_every_s=1e9,
        phases=(Phase(until_fraction=1.0, window=WindowConfig(side_px=32, zoom=(0.5, 0.5))),),
    )
    train_tiny(tmp_path, config, Peers())
    history = read_history(tmp_path)
    first, last = history[:10], history[-10:]

    def mean(entries: list[dict[str, float]], name: str) -> float:
        return sum(entry[name] for entry in entries) / len(entries)

    assert mean(last, "loss") < 0.7 * mean(first, "loss")
    assert mean(last, "best_iou") > mean(first, "best_iou") + 0.25


def _train_and_store(folder: Path, config: TrainConfig, peers: Peers) -> None:
    torch.set_num_threads(1)
    sam = fresh_sam(TINY_SAM, seed=5)
    average = train(config, sam, SceneBank(folder / "bank", TINY_BANK, square_scenes), folder, peers=peers)
    torch.save({"sam": sam.state_dict(), "ema": average.state_dict()}, folder / f"rank{peers.rank}.pt")


@pytest.mark.parametrize("keeps", [True, False])
def test_a_training_that_keeps_statistics_changes_the_weights_and_no_statistic(tmp_path: Path, keeps: bool) -> None:
    config = replace(TINY_TRAINING, total_steps=2, keeps_statistics=keeps)
    before = fresh_sam(TINY_SAM, seed=5).state_dict()
    _train_and_store(tmp_path, config, Peers())
    after = torch.load(tmp_path / "rank0.pt", weights_only=True)
    for trained in after.values():
        same = {name for name, tensor in trained.items() if torch.equal(tensor, before[name])}
        statistics = {name for name in trained if "running_" in name}
        assert statistics
        assert (statistics <= same) is keeps
        assert "image_encoder.stage2.0.weight" not in same


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_training_of_the_decoder_alone_leaves_the_encoder_as_it_is(
    tmp_path: Path, optimizer: Literal["muon", "adamw"]
) -> None:
    config = replace(TINY_TRAINING, total_steps=2, trains_encoder=False, optimizer=optimizer)
    before = fresh_sam(TINY_SAM, seed=5).state_dict()
    _train_and_store(tmp_path, config, Peers())
    for trained in torch.load(tmp_path / "rank0.pt", weights_only=True).values():
        changed = {name for name, tensor in trained.items() if not torch.equal(tensor, before[name])}
        assert changed
        assert not any(name.startswith("image_encoder.") for name in changed)


@pytest.mark.slow
def test_processes_that_train_together_end_with_the_same_weights(tmp_path: Path) -> None:
    config = replace(TINY_TRAINING, total_steps=3)
    run_with_peers(2, partial(_train_and_store, tmp_path, config))
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for part in ("sam", "ema"):
        for name, tensor in ranks[0][part].items():
            assert torch.equal(tensor, ranks[1][part][name]), (part, name)
    average, step = load_average(tmp_path)
    assert step == 3
    assert all(torch.equal(tensor, ranks[0]["ema"][name]) for name, tensor in average.state_dict().items())


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path: Path) -> None:
    train_tiny(tmp_path, replace(TINY_TRAINING, total_steps=1), Peers())
    other = fresh_sam(replace(TINY_SAM, decoder_mlp_width=48), seed=0)
    with pytest.raises(ValueError, match="other sizes"):
        train(TINY_TRAINING, other, SceneBank(tmp_path / "bank", TINY_BANK, square_scenes), tmp_path)


def test_a_batch_must_divide_among_the_processes() -> None:
    with pytest.raises(ValueError, match="5 images does not divide among 2"):
        Peers(rank=0, count=2).positions_of(5)


def test_the_rate_warms_up_stays_and_falls_to_a_fiftieth() -> None:
    config = replace(TINY_TRAINING, total_steps=1000, warmup_steps=100, learning_rate=1.0, flat_fraction=0.3)
    rates = [config.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == 1.0
    assert rates[299] == 1.0
    assert rates[650] == pytest.approx(0.51)
    assert rates[999] == pytest.approx(0.02, abs=1e-4)


def test_the_rate_falls_to_a_tenth_at_each_drop() -> None:
    config = replace(TINY_TRAINING, total_steps=90, warmup_steps=10, learning_rate=1.0, rate_drops_at=(2 / 3, 26 / 27))
    rates = [config.learning_rate_at(step) for step in range(90)]
    assert rates[9:60] == [1.0] * 51
    assert rates[60:87] == [pytest.approx(0.1)] * 27
    assert rates[87:] == [pytest.approx(0.01)] * 3


def test_two_rounds_without_a_click_are_one_among_the_clicks_and_one_at_the_end() -> None:
    config = replace(
        TINY_TRAINING,
        batch=replace(TINY_TRAINING.batch, max_corrections=8),
        phases=(Phase(until_fraction=1.0, window=WindowConfig(side_px=64), correction_fractions=(0.0,) * 8 + (1.0,)),),
        repeats_mask=True,
        total_steps=60,
    )
    sam = fresh_sam(TINY_SAM, seed=5)
    rounds = [draw_step(config, sam, step)[1] for step in range(60)]
    assert all(len(each) == 10 and sum(each) == 8 and not each[-1] for each in rounds)
    assert {each.index(False) for each in rounds} >= set(range(8))


def test_parts_of_at_most_so_many_masks_give_the_gradients_of_the_whole(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    window = WindowConfig(side_px=64, zoom=(1.0, 1.2))
    whole = replace(
        TINY_TRAINING, bf16=False, drop_path=0.5, phases=(Phase(until_fraction=1.0, window=window),), learning_rate=1e-3
    )
    gradients, scores = [], []
    for config in (whole, replace(whole, masks_per_device=9, recomputes_blocks=True)):
        sam = fresh_sam(TINY_VIT, seed=5).train()
        vit_encoder(sam).recomputes_blocks = config.recomputes_blocks
        batch = make_batch(bank, config.batch, window, step=1, positions=range(5), cell_px=4)
        scores.append(learn_from(config, sam, batch, 1, range(5)).stacked())
        gradients.append({name: weight.grad for name, weight in sam.named_parameters()})
    torch.testing.assert_close(*scores)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_what_only_vits_have_is_refused_for_another_encoder(tmp_path: Path) -> None:
    bank = SceneBank(tmp_path / "bank", TINY_BANK, square_scenes)
    for options in ({"drop_path": 0.1}, {"recomputes_blocks": True}):
        with pytest.raises(ValueError, match="HybridEncoder, expected a ViT"):
            train(replace(TINY_TRAINING, **options), fresh_sam(TINY_SAM, 5), bank, tmp_path)


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    config = replace(TINY_TRAINING, total_steps=1)
    train_tiny(tmp_path, config, Peers())
    with pytest.raises(ValueError, match="another optimizer"):
        train_tiny(tmp_path, replace(config, optimizer="adamw"), Peers())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks_per_device": 3}, "expected at least batch.prompts, 4"),
        ({"drop_path": 1.0}, "drop_path 1.0"),
        ({"layer_decay": 0.0}, "layer_decay 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY_TRAINING, **options)


def test_phases_that_do_not_end_with_the_training_are_refused() -> None:
    with pytest.raises(ValueError, match="ascending fractions"):
        replace(TINY_TRAINING, phases=TINY_TRAINING.phases[:1])


def test_training_asks_the_network_what_decode_asks_it(tmp_path: Path) -> None:
    """On a whole frame, training's own path through prompt encoder and decoder equals `Sam.decode`."""
    sam = fresh_sam(TINY_SAM, seed=5).eval()
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0))
    bank = SceneBank(tmp_path, TINY_BANK, square_scenes)
    half_boxes = replace(TINY_TRAINING.batch, box_fraction=0.5)
    batch = make_batch(bank, half_boxes, window, step=1, positions=range(2))
    image_index = torch.arange(2).repeat_interleave(4)
    points, labels = batch.clicks_P2[:, None], torch.ones(8, 1, dtype=torch.int64)
    mask = torch.randn(8, 1, 32, 32) * 5
    with torch.no_grad():
        embeddings = sam.encode(batch.pixels_B3SS)
        for previous in (None, mask):
            sparse = encode_prompts(sam, batch, points, labels, (0, 0))
            ours = decode_window(sam, embeddings, image_index, sparse, previous, corner_cells_xy=(0, 0), bf16=False)
            clicked = Prompts(points_PK2=points, labels_PK=labels, mask_logits_P1LL=previous)
            boxed = Prompts(
                points_PK2=points[:, 1:], labels_PK=labels[:, 1:], boxes_P4=batch.boxes_P4, mask_logits_P1LL=previous
            )
            for prompts, chosen in ((clicked, ~batch.is_box_P), (boxed, batch.is_box_P)):
                decoded = sam.decode(embeddings, prompts, outputs="all", image_index_P=image_index)
                torch.testing.assert_close(ours.logits_P4LL[chosen], decoded.logits_PMLL[chosen], rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(ours.predicted_iou_P4[chosen], decoded.iou_PM[chosen], rtol=1e-4, atol=1e-4)
    assert batch.is_box_P.any()
    assert not batch.is_box_P.all()


def test_a_window_and_its_points_are_placed_alike_in_the_frame() -> None:
    """The token of a click and the dense position of the cell under it agree wherever the window lies."""
    sam = fresh_sam(TINY_SAM, seed=5).eval()
    foreground = sam.prompt_encoder.point_embeddings[1].weight[0]
    click_P2, nothing = torch.tensor([[12.0, 20.0]]), torch.zeros(1, 4)
    batch = Batch(
        pixels_B3SS=torch.zeros(1, 3, 32, 32),
        targets_PLL=torch.zeros(1, 16, 16),
        clicks_P2=click_P2,
        boxes_P4=nothing,
        is_box_P=torch.tensor([False]),
        uniforms_RP3=torch.zeros(3, 1, 3),
        weights_P=torch.ones(1),
        rejected_P=torch.tensor([False]),
    )
    for left, top in ((0, 0), (3, 1), (4, 4)):
        tokens = encode_prompts(sam, batch, click_P2[:, None], torch.ones(1, 1, dtype=torch.int64), (left, top))
        window_CHW = sam.prompt_encoder.get_dense_pe()[0, :, top : top + 4, left : left + 4]
        similarity_HW = torch.einsum("chw,c->hw", window_CHW, tokens[0, 0] - foreground)
        assert divmod(int(similarity_HW.argmax()), 4) == (2, 1), "the cell whose centre is (12, 20)"
