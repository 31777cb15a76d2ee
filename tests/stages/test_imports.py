import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "flows.cli.evaluate",
        "flows.cli.training",
        "flows.config",
        "stages.cluster.pool",
        "stages.fully_automatic.in_process",
        "stages.training.in_process",
        "stages.training.job",
    ],
)
def test_what_computes_in_one_process_imports_no_ray(module: str) -> None:
    program = f"import sys, {module}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
