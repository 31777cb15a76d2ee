"""The spelling of SQL that this code composes itself."""

from collections.abc import Iterable
from itertools import groupby


def quoted(text: str) -> str:
    """Return the text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(texts: Iterable[str]) -> str:
    """Return texts as an SQL list, for `IN`; an empty one is `(NULL)`, which nothing is in."""
    return f"({', '.join(map(quoted, texts)) or 'NULL'})"


def is_shard(plan: str, shard: str) -> str:
    """Return the condition for the rows of one shard."""
    return f"plan = {quoted(plan)} AND shard = {quoted(shard)}"


def are_shards(shards: Iterable[tuple[str, str]]) -> str:
    """Return the condition for the rows of these (plan, shard); false for none.

    One term a plan, however many shards: the engine recurses over chains of OR. The range lets it pass over files,
    which it does not do for the list alone.
    """
    terms = []
    for plan, group in groupby(sorted(set(shards)), key=lambda pair: pair[0]):
        names = [shard for _, shard in group]
        ends = f"shard >= {quoted(names[0])} AND shard <= {quoted(names[-1])}"
        terms.append(f"(plan = {quoted(plan)} AND {ends} AND shard IN {one_of(names)})")
    return " OR ".join(terms) or "false"
