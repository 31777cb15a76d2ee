"""The Triton kernels where there is no GPU: the interpreter runs them, and the compiler accepts them.

Triton reads TRITON_INTERPRET when it is imported, so each of the two needs a process of its own: the files in
`interpreted_triton/`, which a plain run of pytest does not collect, are run here in one child.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="Triton is made for Linux alone"),
    pytest.mark.timeout(600),
]


def run_child(*command: str, cache: Path, interpret: bool) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    environment |= {"TRITON_INTERPRET": "1"} if interpret else {}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=580
    )


def test_under_the_interpreter_the_kernels_agree_with_their_references(tmp_path: Path) -> None:
    files = sorted(str(path) for path in (HERE / "interpreted_triton").glob("*.py"))
    done = run_child("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, cache=tmp_path, interpret=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_every_kernel_compiles_for_the_gpus_of_today(tmp_path: Path) -> None:
    done = run_child(str(HERE / "compile_kernels.py"), cache=tmp_path, interpret=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = {"evaluate_kernel", "count_kernel", "write_kernel", "pairs_kernel", "to_cells_kernel", "to_tokens_kernel"}
    assert set(done.stdout.split()) == kernels
