"""Libraries of the annotation page, which npm takes from their pinned package.json when the package is built.

`pip install -e .` and building a wheel call this as a hook of hatchling, `python hatch_build.py` fetches them alone. A
machine without npm, or whose npm fails, builds a package without them: the page then decodes prompts on the server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB = Path(__file__).parent / "stages" / "annotator" / "web"
LIBRARY = "onnxruntime-web"
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of the library that the page loads; the other 130 MB are for other backends."""
NPM_S = 300
"""Longest time that npm may take, in seconds."""
NOTICE = """onnxruntime-web {version}, taken from npm by hatch_build.py of gigamask.
https://github.com/microsoft/onnxruntime

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


class PageLibraries(BuildHookInterface[Any]):
    """Hook of hatchling that puts the libraries into the page's folder, and so into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch the libraries, and have the wheel carry them although git ignores them."""
        problem = fetch_library(WEB)
        if problem:
            self.app.display_warning(f"the annotation page will decode on the server alone: {problem}")
        build_data["artifacts"].append("stages/annotator/web/vendor/")


def fetch_library(web: Path) -> str:
    """Put the pinned version of the library into `web`/vendor, if it is not there; return why it could not be done."""
    version = json.loads((web / "package.json").read_text())["dependencies"][LIBRARY]
    folder = web / "vendor" / f"{LIBRARY}-{version}"
    if all((folder / name).is_file() for name in FILES):
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "npm was not found; install Node"
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(web / name, temporary)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
        try:
            done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, timeout=NPM_S)
        except subprocess.TimeoutExpired:
            return f"npm did not finish within {NPM_S} seconds"
        if done.returncode:
            return f"npm failed: {done.stderr.strip()[-500:]}"
        shutil.rmtree(web / "vendor", ignore_errors=True)  # other versions
        folder.mkdir(parents=True)
        for name in FILES:
            shutil.copy(Path(temporary) / "node_modules" / LIBRARY / "dist" / name, folder)
    (folder / "NOTICE").write_text(NOTICE.format(version=version))
    return ""


if __name__ == "__main__":
    sys.exit(fetch_library(WEB) or None)
