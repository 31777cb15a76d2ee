import subprocess
import sys
from pathlib import Path

import pytest

from engine.model.identity import identify_model
from engine.model.weights import load_model
from tests.paths import ROOT
from tests.tiny_network import save_tiny_model


def test_the_identity_is_that_of_the_loaded_model(tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path)
    assert identify_model(weights) == load_model(weights).identity
    assert identify_model("seed") == load_model("seed").identity


def test_the_identity_is_read_without_torch() -> None:
    program = "import sys; from engine.model.identity import identify_model as read; read('seed'); "
    program += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_weights_that_are_not_those_of_the_card_have_no_identity(tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="its card says"):
        identify_model(weights)
