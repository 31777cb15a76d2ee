"""The OpenAPI document: every field and parameter has a note, and the notes of Python types are the document's."""

from typing import Any

import pytest

from tests.stages.annotator.in_process import Site


@pytest.fixture
def document(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.anyone().get("/api/openapi.json").json()
    return found


def test_every_field_of_every_type_has_a_note(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    fields = {f"{name}.{field}": about for name, each in schemas.items() for field, about in _fields(each)}
    assert len(fields) > 200
    assert [name for name, about in fields.items() if len(about.get("description", "")) < 5] == []
    assert [name for name, each in schemas.items() if not each.get("description")] == []


def _fields(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(schema.get("properties", {}).items())


def test_every_parameter_has_a_note(document: dict[str, Any]) -> None:
    parameters = [
        (path, each)
        for path, methods in document["paths"].items()
        for route in methods.values()
        for each in route.get("parameters", [])
    ]
    assert len(parameters) > 20
    assert [(path, each["name"]) for path, each in parameters if not each.get("description")] == []


@pytest.mark.parametrize(
    ("name", "field", "note"),
    [
        ("Submission", "fixes", "Submission that this one takes the place of, as a reviewer's fix; None for an"),
        ("Verdict", "answer", "Answer: yes, no or unsure."),
        ("AppendResult", "branch", "Name of the branch that took late work"),
        ("Branch", "fork_revision", "Revision of the main line that the branch continues."),
        ("User", "paused", "Whether the user gets no new tasks for now"),
        ("ClosedRound", "withdrawn", "Number of masks of the dataset that annotators replaced or rejected"),
        ("RoundReport", "audit", "Comparison of masks before and after people improved them"),
        ("Estimate", "low", "Lower end of the 95 % interval."),
    ],
)
def test_a_note_in_python_is_the_note_in_the_document(
    document: dict[str, Any], name: str, field: str, note: str
) -> None:
    assert document["components"]["schemas"][name]["properties"][field]["description"].startswith(note)
