import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from engine.model.card import ModelCard, released_card
from engine.model.config import MOBILE, VIT_B, SamConfig, VitConfig
from engine.model.released import RELEASED
from engine.model.sam import build_sam
from engine.model.weights import load_model, save_model
from tests.paths import ROOT, SAM_PARAMETERS

SMALL = SamConfig(
    image_encoder=VitConfig(width=48, depth=2, heads=3, global_blocks=(1,)),
    input_side=160,
    width=32,
    decoder_heads=4,
    decoder_mlp_width=64,
)
CARD = ModelCard(
    name="small",
    config=SMALL,
    predicted_iou_threshold=0.5,
    stability_threshold=0.8,
    parent="seed-0123456789ab",
    training={"steps": 10},
    metrics={"miou_1_chosen": 0.25},
    license="Apache-2.0",
    notes="random weights",
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save_model(path, build_sam(SMALL), CARD)
    return path


def test_loading_imports_no_compiler(saved: Path) -> None:
    """PyTorch's compiler and sympy cost each process a second; random weights on the device "meta" imported them."""
    program = f"""
import sys
from engine.model.weights import load_model
load_model({str(saved)!r})
print({{"sympy", "torch._dynamo"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.fixture(scope="module")
def vit_b_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released("vit_b", tmp_path_factory.mktemp("original") / "mine.pth")


def write_released(name: str, path: Path) -> Path:
    """A checkpoint with the released names and shapes; each tensor repeats one zero, so that the file is small."""
    shapes = json.loads(SAM_PARAMETERS.read_text())[name]
    state = {
        key: torch.zeros((), dtype=torch.int64 if key.endswith("num_batches_tracked") else torch.float32).expand(shape)
        for key, shape in shapes.items()
    }
    torch.save(state, path)
    return path


def rewrite_card(weights: Path, **changes: Any) -> None:
    path = weights.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reseal(weights: Path, state: dict[str, torch.Tensor]) -> None:
    """Replace the weights and let the card vouch for them, so that only the content is wrong."""
    data = safetensors.torch.save(state)
    weights.write_bytes(data)
    rewrite_card(weights, weights_sha256=hashlib.sha256(data).hexdigest())


def test_saved_weights_come_back_in_fp32_with_their_card(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sam = build_sam(SMALL)
    model_id = save_model(tmp_path / "small.safetensors", sam, CARD)
    model = load_model(tmp_path / "small.safetensors")
    assert (model.name, model.model_id, model.card) == ("small", model_id, CARD)
    assert not model.sam.training
    for name, value in sam.state_dict().items():
        loaded = model.sam.state_dict()[name]
        assert loaded.dtype == torch.float32
        assert torch.allclose(loaded, value, atol=1e-6, rtol=2**-11)
    buffer = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    assert torch.equal(model.sam.state_dict()[buffer], sam.state_dict()[buffer])


def test_a_loaded_network_preprocesses_and_answers(saved: Path) -> None:
    model = load_model(str(saved))
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    with torch.no_grad():
        embeddings = model.sam.encode(model.sam.preprocess(image)[None])
    assert torch.isfinite(embeddings).all()


def test_the_same_weights_make_the_same_bytes_and_id(tmp_path: Path, saved: Path) -> None:
    again = save_model(tmp_path / "again.safetensors", load_model(saved).sam, CARD)
    assert again == load_model(saved).model_id
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.json",
        "again.safetensors",
        "small.json",
        "small.safetensors",
    ]


def test_weights_are_stored_in_half_precision(saved: Path) -> None:
    stored = safetensors.torch.load_file(saved)
    assert stored["mask_decoder.iou_token.weight"].dtype == torch.float16


def test_saving_a_card_of_another_network_is_refused(tmp_path: Path) -> None:
    card = dataclasses.replace(CARD, config=VIT_B)
    with pytest.raises(ValueError, match="its config differs from the network's"):
        save_model(tmp_path / "small.safetensors", build_sam(SMALL), card)


def test_saving_weights_that_overflow_half_precision_is_refused(tmp_path: Path) -> None:
    sam = build_sam(SMALL)
    with torch.no_grad():
        sam.mask_decoder.iou_token.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"not finite, the first is mask_decoder\.iou_token\.weight"):
        save_model(tmp_path / "small.safetensors", sam, CARD)
    assert list(tmp_path.iterdir()) == []


def test_saving_under_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ending in \.safetensors"):
        save_model(tmp_path / "small.pth", build_sam(SMALL), CARD)


def test_an_unknown_name_lists_the_known_ones_and_says_how_to_pull(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unknown model 'vit_x': expected seed .*mobile, vit_b, vit_l, vit_h .*models pull"
    ):
        load_model("vit_x", folder=tmp_path)


def test_a_released_model_that_was_not_pulled_says_how(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'vit_l' is not in .*: run `gigamask models pull vit_l`"):
        load_model("vit_l", folder=tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.safetensors: no such weights file"):
        load_model(tmp_path / "nothing.safetensors")


def test_weights_without_a_card_are_not_loaded(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"small\.json is missing"):
        load_model(saved)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", b"\xff\xfe\x00"])
def test_a_card_that_is_no_json_object_is_refused(saved: Path, text: str | bytes) -> None:
    card = saved.with_suffix(".json")
    card.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"small\.json: "):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"unknown fields \['colour'\]"),
        ({"stability_threshold": "high"}, r"card\.stability_threshold: got 'high', expected float"),
        ({"stability_threshold": True}, r"card\.stability_threshold: got True"),
        ({"predicted_iou_threshold": 88}, r"card\.predicted_iou_threshold: got 88, expected a number in \[0, 1\]"),
        ({"config": {}}, r"config: missing fields"),
        ({"training": None}, r"card\.training: got None, expected dict"),
        ({"weights_sha256": None}, r"its card says None"),
    ],
)
def test_a_malformed_card_is_refused_with_the_fields_name(saved: Path, change: dict[str, Any], message: str) -> None:
    rewrite_card(saved, **change)
    with pytest.raises(ValueError, match=message):
        load_model(saved)


def test_a_flipped_bit_is_noticed(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[-100] ^= 1
    saved.write_bytes(data)
    with pytest.raises(ValueError, match="the weights are damaged or another model's"):
        load_model(saved)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_truncated_file_is_refused_even_if_its_card_vouches_for_it(saved: Path, keep: int) -> None:
    data = saved.read_bytes()[:keep]
    saved.write_bytes(data)
    rewrite_card(saved, weights_sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_model(saved)


def test_wrong_names_and_shapes_are_listed(saved: Path) -> None:
    state = safetensors.torch.load_file(saved)
    state["mask_decoder.iou_tokens.weight"] = state.pop("mask_decoder.iou_token.weight")
    state["image_encoder.pos_embed"] = state["image_encoder.pos_embed"][:, :5].contiguous()
    reseal(saved, state)
    with pytest.raises(ValueError, match="do not fit the network") as caught:
        load_model(saved)
    assert "mask_decoder.iou_token.weight is missing" in str(caught.value)
    assert "mask_decoder.iou_tokens.weight is not part of the network" in str(caught.value)
    assert "image_encoder.pos_embed is [1, 5, 10, 48], not [1, 10, 10, 48]" in str(caught.value)


def test_only_the_first_few_wrong_names_are_listed(saved: Path) -> None:
    state = safetensors.torch.load_file(saved)
    reseal(saved, {name: value for name, value in state.items() if not name.startswith("mask_decoder")})
    with pytest.raises(ValueError, match=r"is missing; .* is missing; .* is missing and \d+ more$"):
        load_model(saved)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    state = safetensors.torch.load_file(saved)
    state["mask_decoder.iou_token.weight"][0, 0] = float("nan")
    reseal(saved, state)
    with pytest.raises(ValueError, match=r"not finite, the first is mask_decoder\.iou_token\.weight"):
        load_model(saved)


def test_an_original_checkpoint_is_recognised_and_gets_the_original_thresholds(vit_b_checkpoint: Path) -> None:
    model = load_model(vit_b_checkpoint)
    assert model.card == released_card("mine", VIT_B)
    assert (model.card.predicted_iou_threshold, model.card.stability_threshold) == (0.88, 0.95)
    assert model.model_id.startswith("mine-")


def test_a_checkpoint_of_mobilesam_is_recognised(tmp_path: Path) -> None:
    model = load_model(write_released("mobile", tmp_path / "mine.pt"))
    assert model.card == released_card("mine", MOBILE)


def test_a_pulled_mobilesam_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_released("mobile", tmp_path / RELEASED["mobile"].file_name)
    pulled = dataclasses.replace(RELEASED["mobile"], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(RELEASED, "mobile", pulled)
    model = load_model("mobile", folder=tmp_path)
    assert (model.name, model.card.config) == ("mobile", MOBILE)


def test_a_pulled_file_whose_checksum_is_wrong_is_not_loaded(tmp_path: Path, vit_b_checkpoint: Path) -> None:
    (tmp_path / RELEASED["vit_b"].file_name).symlink_to(vit_b_checkpoint)
    with pytest.raises(ValueError, match=r"released vit_b is ec2df6.*; .* models pull vit_b"):
        load_model("vit_b", folder=tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 20_000, -1000])
def test_a_truncated_original_checkpoint_is_refused(tmp_path: Path, vit_b_checkpoint: Path, keep: int) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(vit_b_checkpoint.read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a whole PyTorch checkpoint"):
        load_model(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"image_encoder.pos_embed": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="not a whole PyTorch checkpoint of plain tensors"):
        load_model(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "got list, expected a dictionary"),
        ({"model": {"a": torch.zeros(2)}}, "got dict, expected a dictionary of names to tensors"),
        ({"a": torch.zeros(2)}, "not a checkpoint of mobile, vit_b, vit_l, vit_h: image_encoder.pos_embed is missing"),
        ({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 192)}, r"pos_embed is \[1, 64, 64, 192\]"),
        ({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, "the weights do not fit the network: .* is missing"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "other.pth")
