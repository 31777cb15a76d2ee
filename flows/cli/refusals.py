"""Messages about wrong values of options: what was got, and what is expected."""

from typing import Any

import typer
from pydantic import ValidationError

EXPECTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}
"""What is expected, by pydantic's name for the kind of error; the names in braces are those of its context."""


def explain(error: typer.BadParameter) -> str:
    """Return the message of an option's error. Typer checks options with pydantic, whose words name no value."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return error.message
    problem: Any = cause.errors(include_url=False)[0]
    if problem["type"] == "value_error":  # of our own check, which says it all
        return str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] not in EXPECTED:
        return f"got {problem['input']!r}; {problem['msg']}"
    return f"got {problem['input']!r}, expected {EXPECTED[problem['type']].format(**problem.get('ctx', {}))}"
