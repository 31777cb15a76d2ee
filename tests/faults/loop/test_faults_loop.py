"""The checks of loops under fire find nothing in a sound pool, and what is doubled, torn or damaged in another."""

from dataclasses import replace
from pathlib import Path

from stages.training.gate import start_chain
from storage.dataset import Dataset
from storage.protocol.promotions import Decided, Decision
from tests.faults.checks.files import FolderFiles
from tests.faults.checks.findings import DAMAGED, DOUBLED, LOST, TORN
from tests.faults.loop.checker import PoolChecker
from tests.small_dataset import small_dataset
from tests.tiny_network import save_tiny_model


def found(dataset: Dataset) -> list[tuple[str, str]]:
    checker = PoolChecker(FolderFiles(Path(dataset.uri)))
    findings = [*checker.sound_findings(), *checker.model_findings(), *checker.decision_findings()]
    return [(finding.kind, finding.thing) for finding in findings]


def test_a_sound_pool_has_no_findings_and_any_other_has(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "dataset")
    dataset.fold()
    started = start_chain(dataset, tmp_path / "work", str(save_tiny_model(tmp_path)))
    refusal = Decided(
        decision=Decision.REFUSAL, model_id="m", over=started.model_id, key="k", made_by="bob", reason="no gain"
    )
    dataset.promotions.add(refusal)
    assert found(dataset) == []
    masks = PoolChecker(FolderFiles(Path(dataset.uri)))
    assert len(masks.drawn) == len(masks.mask_rows) > 0

    dataset.promotions.add(replace(refusal, key="again"))
    assert found(dataset) == [(DOUBLED, "decision")]
    second = Path(dataset.uri) / "promotions" / "g00000002.json"
    second.write_bytes(second.read_bytes().replace(b"no gain", b"no use!"))
    assert found(dataset) == [(TORN, "decision"), (DOUBLED, "decision")]
    weights = Path(dataset.uri) / "models" / started.model_id / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert found(dataset) == [(DAMAGED, "model"), (TORN, "decision"), (DOUBLED, "decision")]
    next((Path(dataset.uri) / "data").rglob("*.tar")).unlink()
    assert found(dataset)[0] == (LOST, "object")
