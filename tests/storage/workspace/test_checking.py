import pytest

from storage.workspace.checking import InvalidOperation, check_operations
from tests.workspaces import HEIGHT, WIDTH, made, operation


@pytest.mark.parametrize(
    ("kind", "payload", "problem"),
    [
        ("add", {"mask": "a"}, "'rle' is missing"),
        ("add", {"rle": {}}, "'mask' is missing"),
        ("add", made("a") | {"rle": {"size": [12, 16], "counts": "zzz"}}, "character"),
        ("add", made("a") | {"rle": {"size": [12, 16], "counts": [1, 191]}}, "COCO's compressed string"),
        ("add", made("a") | {"rle": {"size": [8, 16], "counts": "P4"}}, "the image 12 x 16"),
        ("add", made("a") | {"rle": {"size": [12, 16], "counts": "P6"}}, "no pixel"),
        ("add", made("a") | {"rle": {"size": ["12", 16], "counts": "P6"}}, "whole sides"),
        ("add", made("a") | {"rle": {"size": [2**40, 2**40], "counts": "P6"}}, "below 2\\*\\*32"),
        ("add", made("a") | {"rle": {"size": [12, 16], "counts": "0" * 4_000_001}}, "at most 4000000"),
        ("add", made("a", clicks=-1), "clicks -1"),
        ("add", made("a", predicted_iou="1"), "predicted_iou '1'"),
        ("add", made("a", predicted_iou=float("nan")), "not JSON compliant"),
        ("add", made("a", origin="found"), "origin 'found'"),
        ("add", made("x" * 65), "1 to 64 characters"),
        ("add", made("a", prompts="0"), "prompts"),
        ("remove", {"mask": 3}, "mask 3"),
        ("merge", made("a", masks=["b"]), "two or more"),
        ("merge", made("a", masks=["b", "b"]), "twice"),
        ("split", {"mask": "a", "into": [made("b")]}, "two or more"),
        ("activity", {"inputs": [[1.0]]}, "pairs"),
        ("activity", {"inputs": [[None, None]]}, "seconds"),
        ("note", {"text": "a\0b"}, "NUL"),
        ("note", {"text": "x" * 8_000_001}, "at most 8000000"),
        ("note", {"text": 3}, "text: expected a text"),
    ],
)
def test_a_malformed_payload_is_refused(kind: str, payload: dict[str, object], problem: str) -> None:
    good, bad = operation("add", made("good")), operation(kind, payload, base=1)
    with pytest.raises(InvalidOperation, match=problem) as caught:
        check_operations([good, bad], (HEIGHT, WIDTH))
    assert caught.value.op_id == bad.op_id


def test_a_payload_comes_out_as_plain_json_values() -> None:
    (checked,) = check_operations([operation("add", made("a", prompts=[{"xy": (1, 2)}]))], (HEIGHT, WIDTH))
    assert checked.payload["prompts"] == [{"xy": [1, 2]}]


def test_a_payload_nested_without_end_is_refused() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidOperation, match="recursion"):
        check_operations([operation("add", made("a", prompts=nested))], (HEIGHT, WIDTH))
