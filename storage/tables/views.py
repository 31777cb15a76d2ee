"""Views: tables in SQL that are read out of the columns of stored tables.

`privacy_searches` and `privacy_regions` are texts in the statistics of image shards, one row for each search and each
region, with `;` between rows and blanks between columns. A snapshot has them by its table `shards`; no release has
that table. A row counts where `images` has its image from the same shard: copies of an image that stay out of the
tables, and erased images, have no rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class View:
    """One view over the statistics of image shards."""

    columns: Mapping[str, str]
    """Type of each column in SQL, by its name, in the order in which the text has them."""

    def statement(self, name: str) -> str:
        """Write the statement that makes the view; `name` is also the key of its text in the statistics."""
        columns = ", ".join(
            f"CAST(split_part(line, ' ', {number}) AS {kind}) AS {column}"
            for number, (column, kind) in enumerate(self.columns.items(), 1)
        )
        text = f"split_part(split_part(stats, '\"{name}\":\"', 2), '\"', 1)"
        lines = f"SELECT plan, shard, unnest(string_to_array({text}, ';')) AS line FROM shards WHERE kind = 'images'"
        rows = f"SELECT DISTINCT plan, shard, {columns} FROM ({lines}) WHERE line <> ''"
        own = ", ".join(f"found.{column}" for column in self.columns)
        owned = " AND ".join(f"found.{column} = images.{column}" for column in ("image_id", "plan", "shard"))
        return f"CREATE VIEW {name} AS SELECT {own} FROM ({rows}) AS found JOIN images ON {owned}"


_SEARCH = {"image_id": "BIGINT", "kind": "VARCHAR", "detector": "VARCHAR"}
_BOX = {"x0": "INT", "y0": "INT", "x1": "INT", "y1": "INT", "score": "REAL"}
VIEWS = {"privacy_searches": View(columns=_SEARCH), "privacy_regions": View(columns={**_SEARCH, **_BOX})}
"""Views by name."""
TABLES_OF_VIEWS = {"images", "shards"}
"""Tables that the views read."""
