"""The spelling of SQL that this code composes itself."""

from collections.abc import Iterable


def quoted(text: str) -> str:
    """Return the text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(texts: Iterable[str]) -> str:
    """Return texts as an SQL list, for `IN`; an empty one is `(NULL)`, which nothing is in."""
    return f"({', '.join(map(quoted, texts)) or 'NULL'})"


def is_shard(plan: str, shard: str) -> str:
    """Return the condition for the rows of one shard."""
    return f"plan = {quoted(plan)} AND shard = {quoted(shard)}"
