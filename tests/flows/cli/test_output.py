"""What commands print: for people, for scripts, and with ids that no JSON reader rounds."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli.output import TABLE_ROWS, print_result, print_rows, write_rows

BIG_ID = 2**63 - 1
ANSWER = pa.table({"image_id": [BIG_ID, 7], "source": ["a, b.jpg", "[red]c.jpg"], "score": [0.123456789, None]})


def test_json_carries_ids_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(ANSWER, "json", None)
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {"image_id": str(BIG_ID), "source": "a, b.jpg", "score": 0.123456789}
    assert rows[1]["score"] is None


def test_json_rounds_no_id_under_another_name_and_has_no_number_that_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = {"id": [BIG_ID], "small": [2**53], "nan": [float("nan")], "inf": [float("-inf")], "ids": [[BIG_ID, 1]]}
    write_rows(pa.table(odd), "json", None)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    (row,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert row == {"id": str(BIG_ID), "small": 2**53, "nan": None, "inf": None, "ids": [str(BIG_ID), 1]}


def test_csv_quotes_and_keeps_full_precision(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(ANSWER, "csv", None)
    assert capsys.readouterr().out.splitlines()[1] == f'{BIG_ID},"a, b.jpg",0.123456789'


def test_a_table_shows_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(ANSWER, "table", None)
    assert "[red]c.jpg" in capsys.readouterr().out


def test_a_value_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = pa.table({"source\x1b[2J": ["a\x1b]0;title\x07.jpg", "line\nbreak, täxt \u202etxt.exe\x9b31m\r"]})
    write_rows(hostile, "table", None)
    written = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(written)
    assert r"a\x1b]0;title\x07.jpg" in written
    assert "täxt" in written
    assert r"source\x1b[2J" in written


@pytest.mark.parametrize("rows", [0, 1, 25_001])
def test_a_large_answer_is_written_whole(rows: int, tmp_path: Path) -> None:
    numbers = pa.chunked_array([list(range(rows // 2)), list(range(rows // 2, rows))], type=pa.int64())
    for form in ("json", "csv", "parquet"):
        told: list[tuple[int, int]] = []
        write_rows(
            pa.table({"n": numbers}), form, tmp_path / f"rows.{form}", on_rows=lambda *now, told=told: told.append(now)
        )
        assert told[-1] == (rows, rows)
    assert json.loads((tmp_path / "rows.json").read_text()) == [{"n": number} for number in range(rows)]
    assert (tmp_path / "rows.csv").read_text().splitlines() == ['"n"', *map(str, range(rows))]
    assert pq.read_table(tmp_path / "rows.parquet").column("n").to_pylist() == list(range(rows))


def test_a_long_table_says_how_many_rows_it_hides(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(pa.table({"n": list(range(TABLE_ROWS + 3))}), "table", None)
    assert "and 3 more rows" in capsys.readouterr().out


def test_parquet_goes_to_a_file_and_back(tmp_path: Path) -> None:
    write_rows(ANSWER, "parquet", tmp_path / "answer.parquet")
    assert pq.read_table(tmp_path / "answer.parquet").equals(ANSWER)


@pytest.mark.parametrize(("form", "message"), [("xml", "expected one of"), ("parquet", "--output FILE")])
def test_a_form_that_cannot_be_written_is_refused(form: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_rows(ANSWER, form, None)


@dataclass(frozen=True, kw_only=True)
class Row:
    plan_id: str
    mask_id: int
    missing: tuple[str, ...]


def test_results_print_as_json_and_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row(plan_id="p", mask_id=BIG_ID, missing=("000001",))
    print_result(row, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"plan_id": "p", "mask_id": str(BIG_ID), "missing": ["000001"]}
    print_rows([row], as_json=False, empty="nothing")
    assert capsys.readouterr().out.splitlines()[1].split() == ["p", str(BIG_ID), "000001"]
    print_rows([dataclasses.replace(row, missing=())], as_json=False, empty="nothing")
    assert capsys.readouterr().out.split()[-1] == "none"
    print_rows([dataclasses.replace(row, missing=tuple("abcdefg"))], as_json=False, empty="nothing")
    assert "a, b, c, d, e and 2 more" in capsys.readouterr().out
    print_rows([], as_json=False, empty="nothing")
    assert capsys.readouterr().out == "nothing\n"


def test_people_read_no_python_where_a_field_has_named_items(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Proof:
        rows: int
        sha256: str

    @dataclass(frozen=True)
    class Result:
        name: str
        proofs: dict[str, Proof]
        versions: dict[str, int]

    found = Result(name="s1", proofs={"masks": Proof(9, "ab"), "images": Proof(1, "cd")}, versions={})
    print_result(found, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "name      s1",
        "proofs    masks rows 9, sha256 ab",
        "proofs    images rows 1, sha256 cd",
        "versions  none",
    ]
