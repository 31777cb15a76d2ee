"""Literals and conditions of the SQL that this package composes."""

from collections.abc import Iterable
from itertools import groupby


def quoted(text: str) -> str:
    """Return the text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(texts: Iterable[str]) -> str:
    """Return texts as an SQL list, for use after `IN`.

    Without texts the list is `(NULL)`, which matches nothing.
    """
    return f"({', '.join(map(quoted, texts)) or 'NULL'})"


def is_shard(plan: str, shard: str) -> str:
    """Return the SQL condition that selects the rows of one shard."""
    return f"plan = {quoted(plan)} AND shard = {quoted(shard)}"


def are_shards(shards: Iterable[tuple[str, str]]) -> str:
    """Return the SQL condition that selects the rows of several shards, given as (plan, shard).

    Without shards the condition is `false`. The condition has one term for each plan, however many shards, because the
    engine recurses over chains of OR. Each term also has a range of shard names, because the engine can skip files by a
    range but not by a list.
    """
    terms = []
    for plan, group in groupby(sorted(set(shards)), key=lambda pair: pair[0]):
        names = [shard for _, shard in group]
        ends = f"shard >= {quoted(names[0])} AND shard <= {quoted(names[-1])}"
        terms.append(f"(plan = {quoted(plan)} AND {ends} AND shard IN {one_of(names)})")
    return " OR ".join(terms) or "false"
