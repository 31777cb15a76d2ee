"""What a browser needs to decode prompts by itself: each model's decoder as ONNX, and the library that runs it.

Decoders are exported when the server starts and kept in the cache's folder, if there is one, by the hash of their
model. The library is onnxruntime-web; npm puts it into the page's folder when the package is built, where Node is at
hand. Without either one prompts are decoded on the server, and the page shows the reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.model.onnx_decoder import VERSION, export_decoder
from engine.model.weights import Model
from storage.errors import NotFound
from storage.objects.atomic import replace_file

logger = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"
"""Folder of the page's files."""
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of onnxruntime-web that the page loads."""
_DIGEST_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """A decoder as an ONNX model, and the SHA-256 of its bytes as 64 hex digits."""

    data: bytes
    sha256: str


class Decoders:
    """Exported decoders by model, each exported once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files: dict[str, OnnxFile] = {}
        self._lock = threading.Lock()

    def prepare(self, model: Model) -> None:
        """Export a model's decoder ahead; where that cannot be, the log says so, and the server decodes."""
        try:
            self.get(model)
        except NotFound as error:
            logger.warning("prompts for %s are decoded on the server alone: %s", model.model_id, error)

    def get(self, model: Model) -> OnnxFile:
        """Return the decoder of a model, from the cache or exported now.

        Raises:
            NotFound: The decoder cannot be exported.
        """
        with self._lock:
            if model.model_id not in self._files:
                path = self._folder / model.model_id / f"decoder-{VERSION}.onnx" if self._folder is not None else None
                data = _read(path) if path is not None else None
                if data is None:
                    try:
                        data = export_decoder(model.sam)
                    except RuntimeError as error:
                        raise NotFound(str(error)) from error
                    if path is not None:
                        _write(path, data)
                self._files[model.model_id] = OnnxFile(data=data, sha256=hashlib.sha256(data).hexdigest())
            return self._files[model.model_id]


@cache
def find_runtime(web: Path = WEB) -> str:
    """Return the path of onnxruntime-web below the page's folder; empty where it was not installed.

    The folder carries the version that `package.json` pins, so that files of another version are never taken.
    """
    version = json.loads((web / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    folder = f"vendor/onnxruntime-web-{version}"
    return folder if all((web / folder / name).is_file() for name in RUNTIME_FILES) else ""


def _read(path: Path) -> bytes | None:
    """Read a cached decoder; None where there is none or the file is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        logger.warning("%s is damaged; the decoder is exported again", path)
        return None
    return data


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: file.write(hashlib.sha256(data).digest() + data))
    except OSError as error:
        logger.warning("%s: %s; the decoder is exported again at the next start", path, error)
