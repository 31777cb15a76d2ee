from dataclasses import replace
from pathlib import Path

from engine.model.weights import load_model
from flows.config.run import RunConfig
from flows.fully_automatic import _plan
from stages.cluster.pool import PoolConfig
from stages.fully_automatic.worker import expected_memory_bytes
from storage.dataset import Dataset
from tests.tiny_network import save_tiny_model


def test_a_workers_memory_is_that_of_its_model_unless_given(tmp_path: Path) -> None:
    dataset, weights = Dataset.create(tmp_path / "dataset"), save_tiny_model(tmp_path)
    config = RunConfig(dataset=dataset.uri, model=str(weights))
    plans, pool = _plan(dataset, config)
    assert plans == []
    assert pool == replace(config.pool, worker_memory_bytes=expected_memory_bytes(load_model(weights)))
    given = replace(config, pool=PoolConfig(worker_memory_bytes=5, threads=2))
    assert _plan(dataset, given)[1] == given.pool
