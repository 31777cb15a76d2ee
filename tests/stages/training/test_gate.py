"""The gate of a dataset: a better model is promoted, a worse one refused in words, and a killed gate goes on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.evaluation.config import EvaluationConfig, GateConfig, GateSettings
from engine.labelled import LabelledImage
from engine.model.weights import load_model, save_model
from stages.promoted import find_by_address, find_in_dataset
from stages.training.gate import Candidacy, decide, publish_version
from storage import rle
from storage.dataset import Dataset
from storage.errors import Conflict
from storage.objects.local import LocalStore
from storage.protocol.promotions import Decided, Decision, Generation, roll_back

SETTINGS = GateSettings(
    evaluate=EvaluationConfig(clicks=(1, 3)),
    gate=GateConfig(min_images=3, max_latency_ratio=10.0),  # other processes share this machine
)


class Killed(BaseException):
    """Death of the process, which nothing may catch."""


def squares(domain: str, seeds: range) -> list[LabelledImage]:
    """Draw images of 96 px with one bright square on a dark ground, and the square as the only mask."""
    images = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        top, left = rng.integers(8, 48, 2)
        mask_HW = np.zeros((96, 96), np.bool_)
        mask_HW[top : top + 36, left : left + 36] = True
        image_HW3 = rng.integers(0, 60, (96, 96, 3), np.uint8)
        image_HW3[mask_HW] += 150
        png = cv2.imencode(".png", image_HW3)[1].tobytes()
        images.append(
            LabelledImage(
                domain=domain,
                stem=str(seed),
                origin=f"square {seed}",
                read_bytes=lambda png=png: png,  # type: ignore[misc]
                image_id=seed,
                height=96,
                width=96,
                masks_by_annotator={0: (rle.encode(mask_HW),)},
            )
        )
    return images


FROZEN = squares("squares", range(4))
KNOWN = squares("known", range(10, 11))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seed without its windows, which would take most of the time of these tests."""
    torch.set_num_threads(1)
    model = load_model("seed")
    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    save_model(path, model.sam, replace(model.card, name="plain", zooms_in=False))
    return path


@pytest.fixture(autouse=True)
def _started_with_plain(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let chains begin with the plain model, and keep copies out of the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("stages.training.gate.FIRST_PROMOTED", str(plain))


@pytest.fixture(scope="module")
def broken(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain model with noise on the weights of its decoder: a deliberately worse model."""
    model = load_model(plain)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.sam.mask_decoder.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    path = tmp_path_factory.mktemp("broken") / "broken.safetensors"
    save_model(path, model.sam, replace(model.card, name="broken"))
    return path


def candidacy(candidate: str | Path, work: Path, images: Sequence[LabelledImage] = FROZEN, **more: bool) -> Candidacy:
    return Candidacy(
        candidate=str(candidate),
        images=images,
        place="squares",
        known=KNOWN,
        made_by="ann",
        settings=SETTINGS,
        work_folder=work,
        **more,
    )


def start_with(dataset: Dataset, path: Path, work: Path) -> str:
    """Begin the chain with a model of the test's choice."""
    model_id = publish_version(dataset, str(path), work)
    begin = Decided(decision=Decision.START, model_id=model_id, over="", key="start", made_by="test", reason="test")
    dataset.promotions.add(begin)
    return model_id


def summary(chain: Sequence[Generation]) -> list[tuple[str, str]]:
    return [(each.decision.value, each.promoted.split("-")[0]) for each in chain]


def test_a_worse_candidate_is_refused_in_words_and_on_record(
    dataset: Dataset, plain: Path, broken: Path, tmp_path: Path
) -> None:
    plain_id = load_model(plain).model_id
    assert find_in_dataset(dataset, "promoted", tmp_path) == "seed"
    refusal = decide(dataset, candidacy(broken, tmp_path), print)
    assert (refusal.decision, refusal.promoted, refusal.over) == (Decision.REFUSAL, plain_id, plain_id)
    assert "refused: the gain at 1 click is -0." in refusal.reason
    assert "domain squares changes by -" in refusal.reason
    assert "it forgets what was known before: -" in refusal.reason
    checks = refusal.evidence["checks"]
    assert isinstance(checks, list)
    assert [check["name"] for check in checks if check["name"] in ("latency", "size")] == ["latency", "size"]
    assert refusal.evidence["evaluation_set"]["images"] == 4
    assert dataset.promotions.history()[-1] == refusal

    # Asked again, nothing is measured again
    logged: list[str] = []
    assert decide(dataset, candidacy(broken, tmp_path), logged.append) == refusal
    assert logged == ["generation 2 has decided that already"]


def test_a_better_candidate_is_promoted_and_can_be_rolled_back(
    dataset: Dataset, plain: Path, broken: Path, tmp_path: Path
) -> None:
    worse = start_with(dataset, broken, tmp_path)
    made = decide(dataset, candidacy(plain, tmp_path), print)
    assert (made.decision, made.over, made.made_by) == (Decision.PROMOTION, worse, "ann")
    assert "the gain at 1 click is +0." in made.reason
    assert load_model(find_in_dataset(dataset, "promoted", tmp_path)).model_id == made.model_id
    assert decide(dataset, candidacy(plain, tmp_path), print) == made

    back = roll_back(dataset.promotions, None, "bob", "the page felt slow")
    assert (back.decision, back.promoted, back.reason) == (Decision.ROLLBACK, worse, "the page felt slow")
    assert load_model(find_by_address(dataset.uri, "promoted")).model_id == worse
    assert summary(dataset.promotions.history()) == [
        ("start", "broken"),
        ("promotion", "plain"),
        ("rollback", "broken"),
    ]
    assert decide(dataset, candidacy(plain, tmp_path), print).number == 4  # may be promoted anew after a rollback


def test_another_evaluation_set_is_refused_unless_asked_for(dataset: Dataset, broken: Path, tmp_path: Path) -> None:
    decide(dataset, candidacy(broken, tmp_path), print)
    with pytest.raises(ValueError, match=r"expected the frozen one of generation 2, squares \(4 images"):
        decide(dataset, candidacy(broken, tmp_path, FROZEN[:3]), print)
    assert decide(dataset, candidacy(broken, tmp_path, FROZEN[:3], new_set=True), print).number == 3


def test_who_loses_the_race_is_told_and_recorded(dataset: Dataset, plain: Path, broken: Path, tmp_path: Path) -> None:
    worse = start_with(dataset, broken, tmp_path)
    other = Decided(decision=Decision.PROMOTION, model_id="other-1", over=worse, key="x", made_by="bob", reason="first")

    def promote_other(line: str) -> None:
        dataset.promotions.add(other)  # while ours is measured

    with pytest.raises(Conflict, match=r"generation 2 by bob has made other-1 the promoted model since; run the same"):
        decide(dataset, candidacy(plain, tmp_path), promote_other)
    chain = dataset.promotions.history()
    assert summary(chain) == [("start", "broken"), ("promotion", "other"), ("refusal", "other")]
    assert chain[-1].evidence["checks"]


def test_a_gate_killed_at_any_write_goes_on_and_decides_once(
    dataset: Dataset, broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run dies at its first write, before or after it took effect, until a run has nothing left to write."""
    writes: list[str] = []
    for name in ("put_file", "put_if_absent"):
        whole = getattr(LocalStore, name)
        monkeypatch.setattr(LocalStore, name, _dying(whole, writes))
    runs = 0
    while True:
        try:
            made = decide(dataset, candidacy(broken, tmp_path), print)
            break
        except Killed:
            runs += 1
            assert runs < 30
    assert summary(dataset.promotions.history()) == [("start", "plain"), ("refusal", "plain")]
    assert made.decision is Decision.REFUSAL
    assert runs >= 6
    assert dataset.maintenance.verify().faults == ()


def _dying(whole: object, writes: list[str]) -> object:
    def write(self: LocalStore, key: str, what: object) -> object:
        writes.append(key)
        if writes.count(key) == 1:  # the first try dies before, the second after the write
            raise Killed
        result = whole(self, key, what)
        if writes.count(key) == 2:
            raise Killed
        return result

    return write
