"""The rows of several shards, as a table has them and as they should be, compared shard by shard."""

import pyarrow as pa
import pyarrow.compute as pc

Place = tuple[str, str]
"""Plan and shard."""
_IDS = ("image_id", "mask_id", "generation", "annotator_id")


def differing_columns(got: pa.Table, expected: pa.Table) -> dict[Place, list[str]]:
    """Name the columns in which the rows of a shard differ, by shard. Rows may come in any order.

    A shard of which the two tables have different numbers of rows is left out: those who count rows name it.
    """
    got, expected = _sorted(got), _sorted(expected)
    if got.equals(expected):
        return {}
    differing = {}
    for place in sorted(_places(got) & _places(expected)):
        own, other = _of(place, got), _of(place, expected)
        differ = [name for name in got.column_names if not own[name].equals(other[name])]
        if own.num_rows == other.num_rows and differ:
            differing[place] = differ
    return differing


def _sorted(rows: pa.Table) -> pa.Table:
    """Sort rows by shard, and within a shard by their ids or, where they have none, by all columns."""
    names = rows.column_names
    ids = [name for name in _IDS if name in names] or names
    return rows.sort_by([(name, "ascending") for name in dict.fromkeys(["plan", "shard", *ids])])


def _places(rows: pa.Table) -> set[Place]:
    pairs = rows.select(["plan", "shard"]).group_by(["plan", "shard"]).aggregate([])
    return set(zip(pairs["plan"].to_pylist(), pairs["shard"].to_pylist(), strict=True))


def _of(place: Place, rows: pa.Table) -> pa.Table:
    plan, shard = place
    return rows.filter((pc.field("plan") == plan) & (pc.field("shard") == shard))
