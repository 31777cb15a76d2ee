"""What can be wrong with a dataset, in words that the harness counts by."""

from dataclasses import dataclass

LOST, DOUBLED, FOREIGN = "lost", "doubled", "foreign"  # a row or a sample that must, or must not, be there
DAMAGED, TORN, UNFINISHED = "damaged", "torn", "unfinished"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong. `kind`: one of the words above. `thing`: image, mask, shard, record, object or table."""

    kind: str
    thing: str
    what: str
