"""What a user reads who gave an option a wrong value."""

import pytest
from typer.testing import CliRunner

from flows.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--port", "abc"], "'--port': got 'abc', expected a whole number"),
        (["serve", "--port", "99999"], "'--port': got '99999', expected at most 65535"),
        (["release", "out", "--holdout-every", "1"], "'--holdout-every': got '1', expected at least 2"),
        (["release", "out", "--holdout-every", "2.5"], "'--holdout-every': got '2.5', expected a whole number"),
        (["round", "open", "--images", "many"], "'--images': got 'many', expected a whole number"),
        (["train", "--snapshot", "s", "--workers", ""], "'--workers': got '', expected a whole number"),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_expected(arguments: list[str], expected: str) -> None:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert expected in done.stderr
    assert "Input should" not in done.stderr
