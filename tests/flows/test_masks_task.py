from dataclasses import replace
from pathlib import Path

from engine.model.weights import load_model
from flows.config.run import RunConfig
from flows.fully_automatic import _expect_memory
from stages.cluster.pool import PoolConfig
from stages.fully_automatic.worker import expected_memory_bytes
from tests.tiny_network import save_tiny_model


def test_a_workers_memory_is_that_of_its_model_unless_given(tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path)
    config = RunConfig(model=str(weights))
    needed = expected_memory_bytes(load_model(weights))
    assert _expect_memory(config) == replace(config.pool, worker_memory_bytes=needed)
    given = replace(config, pool=PoolConfig(worker_memory_bytes=5, threads=2))
    assert _expect_memory(given) == given.pool
