"""The check that SQL only reads: the engine plans the statement, executes nothing, and the plan is looked at.

No pattern over the text decides: comments nest in DataFusion, `$$` quotes strings, and its grammar grows. A statement
passes if every node of the engine's own logical plan is one of those that read.
"""

import json
import re
from typing import Any

import pyarrow as pa
from deltalake import QueryBuilder

from storage.tables.columns import SCHEMAS
from storage.tables.delta import one_line

MAX_OPERATORS = 1500
"""Largest number of operators in a statement. The engine recurses over chains of them, and at some thousand the stack
of its threads overflows, which no program survives; a list of values (`IN (...)`) is no chain."""

# FORMAT comes first because the grammar is EXPLAIN [ANALYZE] [VERBOSE] [FORMAT f] statement: after it, a text that
# begins with ANALYZE is no option, which would execute the rest, but a statement of its own.
_PLAN = "EXPLAIN FORMAT PGJSON\n"
_READING_NODES = {
    "Aggregate",
    "DescribeTable",
    "DistinctAll",
    "DistinctOn",
    "EmptyRelation",
    "Filter",
    "Limit",
    "Projection",
    "RecursiveQuery",
    "Repartition",
    "Sort",
    "Subquery",
    "TableScan",
    "Union",
    "Unnest",
    "Values",
    "WindowAggr",
}
_JOIN = re.compile(r"(Inner|Left|Right|Full|LeftSemi|RightSemi|LeftAnti|RightAnti|LeftMark|RightMark|AsOf) Join")
# Fields of nodes that write. Some versions of the engine call a Dml node "Projection": its fields give it away.
_WRITING_FIELDS = {"Operation", "Table Name", "Output URL", "Statement", "Detail"}
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:VERBOSE\s+)?(?:FORMAT\s+\w+\s+)?", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_OPERATOR = re.compile(r"\b(?:OR|AND|UNION|INTERSECT|EXCEPT|JOIN|THEN|LIKE|IS)\b|::|[-+*/%|&^<>=~]+", re.IGNORECASE)
_UNEXPECTED = re.compile(
    r"Expected: (?P<expected>.*), found: (?P<got>.+?)(?P<place> at Line: \d+, Column: \d+)?\"?\)?$"
)
_LINE = re.compile(r"Line: (\d+)")
_UNSUPPORTED = re.compile(r"(?:Unsupported SQL statement: |Query )(?P<got>.+?)(?: not implemented yet)?$")


class Refused(ValueError):
    """SQL that is not one statement that reads; the message is one line."""


def check_reads(builder: QueryBuilder, sql: str) -> None:
    """Let the engine plan a statement, executing nothing, and refuse it unless the whole plan reads.

    Raises:
        Refused: It is not one statement that only reads, or one with too many operators.
        Exception: The engine's own, for a statement that reads but is wrong, and for a store that fails.
    """
    operators = sum(1 for _ in _OPERATOR.finditer(_QUOTED.sub("", sql)))
    if operators > MAX_OPERATORS:
        raise Refused(
            f"SQL: got {operators} operators, expected at most {MAX_OPERATORS} in a statement; "
            "name values in IN (...), or split the statement"
        )

    # The engine plans no EXPLAIN of an EXPLAIN: what follows the word has to be a statement that reads, by itself.
    explain = _EXPLAIN.match(sql)
    statement = sql[explain.end() :] if explain else sql
    if explain and re.match(r"\s*ANALYZE\b", statement, re.IGNORECASE):
        raise refuse("EXPLAIN ANALYZE, which executes")

    try:
        rows = pa.table(builder.execute(_PLAN + statement).read_all()).to_pylist()
    except Exception as error:  # the library's own class derives from nothing more telling
        if (refused := _refused(one_line(error))) is not None:
            raise refused from error
        raise
    _check_plan(rows)


def check_is_condition(builder: QueryBuilder, condition: str, table: str) -> None:
    """Refuse a text that is not one condition over a table's columns, such as `true) UNION (SELECT ...`.

    What breaks out of the parentheses of one of these statements is wrong in the other.

    Raises:
        Refused: It is no condition.
        Exception: As `check_reads`.
    """
    check_reads(builder, f"SELECT 1 FROM {table} WHERE ({condition}\n)")
    check_reads(builder, f"SELECT CASE WHEN ({condition}\n) THEN 1 END FROM {table}")


def refuse(got: str) -> Refused:
    """Make the error for a statement that does not only read."""
    shown = got if len(got) <= 60 else got[:60] + "..."
    return Refused(f"SQL: got {shown}; a dataset is read with SELECT, one statement at a time; {tables_there()}")


def tables_there() -> str:
    """Name the tables, and how to see their columns."""
    return f"tables are {', '.join(SCHEMAS)} (`DESCRIBE masks` lists the columns of one)"


def _check_plan(rows: list[dict[str, Any]]) -> None:
    if len(rows) != 1 or rows[0].get("plan_type") != "logical_plan":
        raise refuse("a statement without a plan")
    try:
        left = [root["Plan"] for root in json.loads(rows[0]["plan"])]
    except RecursionError as error:
        raise Refused("SQL: the statement is nested too deeply; split it") from error
    while left:
        node = left.pop()
        kind = node["Node Type"]
        if _WRITING_FIELDS & node.keys():
            raise refuse(str(node.get("Operation") or node.get("Statement") or kind))
        if kind not in _READING_NODES and not _JOIN.fullmatch(kind):
            raise refuse(kind)
        left += node["Plans"]


def _refused(message: str) -> Refused | None:
    """Make the error for a text that the engine does not plan because it is not one statement that it knows."""
    if "only supports a single SQL statement" in message:
        return refuse("several statements")
    if "Nested EXPLAINs" in message:
        return Refused("SQL: got EXPLAIN behind a comment or another EXPLAIN; begin the text with one EXPLAIN")
    if (unsupported := _UNSUPPORTED.search(message)) is not None:
        return refuse(unsupported["got"])
    if (unexpected := _UNEXPECTED.search(message)) is not None:
        got = "nothing" if unexpected["got"] == "EOF" else unexpected["got"]
        place = _LINE.sub(lambda line: f"Line: {int(line[1]) - 1}", unexpected["place"] or "").lower().replace(":", "")
        return Refused(f"SQL: got {got}{place}, expected {unexpected['expected']}; {tables_there()}")
    return None
