import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.model.identity import hash_weights
from engine.model.weights import load_model
from flows.config.run import RunConfig
from flows.fully_automatic import _expect_memory, masks
from stages.cluster.pool import PoolConfig
from stages.fully_automatic.worker import expected_memory_bytes
from tests.small_dataset import small_dataset
from tests.tiny_network import save_tiny_model


def test_a_workers_memory_is_that_of_its_model_unless_given(tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path)
    config = RunConfig(model=str(weights))
    needed = expected_memory_bytes(load_model(weights))
    assert _expect_memory(config) == replace(config.pool, worker_memory_bytes=needed)
    given = replace(config, pool=PoolConfig(worker_memory_bytes=5, threads=2))
    assert _expect_memory(given) == given.pool


def test_a_model_that_cannot_be_loaded_is_not_planned(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    before = dataset.plans()
    weights = save_tiny_model(tmp_path)
    save_file({"no_such_parameter": np.zeros(1, np.float16)}, weights)
    card_path = weights.with_suffix(".json")
    card = json.loads(card_path.read_text())
    card["weights_sha256"] = hash_weights(weights)
    card_path.write_text(json.dumps(card))
    config = RunConfig(dataset=dataset.uri, model=str(weights), pool=PoolConfig(worker_memory_bytes=5))
    for only_unmasked in (False, True):
        with pytest.raises(ValueError, match="the weights do not fit the network"):
            masks(config, only_unmasked=only_unmasked)
    assert dataset.plans() == before
