"""The check that SQL only reads: the engine plans the statement without executing it, and the plan is inspected.

Patterns over the text would not do: comments nest in DataFusion, `$$` quotes strings, and its grammar grows. A
statement passes if every node of the engine's own logical plan is known to read.
"""

import json
import re
from typing import Any

import pyarrow as pa
from deltalake import QueryBuilder

from storage.errors import InvalidInput
from storage.tables.columns import SCHEMAS
from storage.tables.delta import one_line

MAX_OPERATORS = 1500
"""Most operators in a statement.

The engine recurses over chains of operators. At some thousands the stack of its threads overflows, which ends the
process. A list of values (`IN (...)`) is no chain.
"""

# The grammar is EXPLAIN [ANALYZE] [VERBOSE] [FORMAT f] statement. With FORMAT before it, a text that begins with
# ANALYZE is parsed as a statement, and not as the option that would execute the rest.
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
# Fields of nodes that write. Some versions of the engine name a Dml node "Projection"; only its fields identify it.
_WRITING_FIELDS = {"Operation", "Table Name", "Output URL", "Statement", "Detail"}
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:VERBOSE\s+)?(?:FORMAT\s+\w+\s+)?", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# Where one of these is, a quote need not begin what it seems to begin: it may lie in a comment, or be escaped.
_MISLEADING = re.compile(r"--|/\*|[$`\\]")
_OPERATOR = re.compile(r"\b(?:OR|AND|UNION|INTERSECT|EXCEPT|JOIN|THEN|LIKE|IS)\b|::|[-+*/%|&^<>=~]+", re.IGNORECASE)
_UNEXPECTED = re.compile(
    r"Expected: (?P<expected>.*), found: (?P<got>.+?)(?P<place> at Line: \d+, Column: \d+)?\"?\)?$"
)
_LINE = re.compile(r"Line: (\d+)")
_UNSUPPORTED = re.compile(r"(?:Unsupported SQL statement: |Query )(?P<got>.+?)(?: not implemented yet)?$")


class Refused(InvalidInput):
    """Refusal of SQL that is not a single statement that only reads.

    The message is one line.
    """


def check_reads(builder: QueryBuilder, sql: str) -> None:
    """Check that `sql` is one statement that only reads.

    The engine plans the statement without executing it, and the plan is checked.

    Raises:
        Refused: `sql` is not one statement that only reads, or has too many operators.
        Exception: The error of the engine, for a statement that reads but is wrong, or for a store that fails.
    """
    # Its length, which could overflow the engine's stack
    text = sql if _MISLEADING.search(sql) else _QUOTED.sub("", sql)
    operators = sum(1 for _ in _OPERATOR.finditer(text))
    if operators > MAX_OPERATORS:
        raise Refused(
            f"SQL: got {operators} operators, expected at most {MAX_OPERATORS} in a statement; "
            "name values in IN (...), or split the statement"
        )

    # The statement behind EXPLAIN: the engine plans no EXPLAIN of an EXPLAIN, so this part has to read by itself.
    explain = _EXPLAIN.match(sql)
    statement = sql[explain.end() :] if explain else sql
    if explain and re.match(r"\s*ANALYZE\b", statement, re.IGNORECASE):
        raise refuse("EXPLAIN ANALYZE, which executes")

    # Its plan
    try:
        rows = read_batches(builder, _PLAN + statement).read_all().to_pylist()
    except Exception as error:  # the library's own class derives from nothing more telling
        if (refused := _refused(one_line(error))) is not None:
            raise refused from error
        raise
    _check_plan(rows)


def read_batches(builder: QueryBuilder, sql: str) -> pa.RecordBatchReader:
    """Execute a statement and return its batches, which are read without holding up Python's other threads.

    `read_all` of the reader that the engine itself returns holds the interpreter's lock until the store has answered.
    """
    return pa.RecordBatchReader.from_stream(builder.execute(sql))


def check_is_condition(builder: QueryBuilder, condition: str, table: str) -> None:
    """Check that a text is one condition over the columns of a table.

    A text such as `true) UNION (SELECT ...` is refused. The condition is planned inside two different statements,
    because a text that closes the parentheses of one statement and goes on is wrong in the other.

    Raises:
        Refused: `condition` is not one condition.
        Exception: The error of the engine, as in `check_reads`.
    """
    check_reads(builder, f"SELECT 1 FROM {table} WHERE ({condition}\n)")
    check_reads(builder, f"SELECT CASE WHEN ({condition}\n) THEN 1 END FROM {table}")


def refuse(got: str) -> Refused:
    """Make the error for a statement that does not only read."""
    shown = got if len(got) <= 60 else got[:60] + "..."
    return Refused(f"SQL: got {shown}; a dataset is read with SELECT, one statement at a time; {tables_there()}")


def tables_there() -> str:
    """Return the part of an error that names the tables and tells how to list their columns."""
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
    """Make the error for a text that the engine cannot plan as one statement; None for any other failure."""
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
