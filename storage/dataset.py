"""A dataset: shards of images and masks, the tables over them, and its immutable snapshots."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from storage.commits import Commit, Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Reject


class Dataset:
    """Opened with `Dataset.open`, `Dataset.create` or `Dataset.open_or_create`; safe to share between processes."""

    @classmethod
    def create(cls, uri: str | Path) -> "Dataset":
        """A new, empty dataset. Raises StoreError for a place that is taken, foreign, unwritable or unfit."""

    @classmethod
    def open(cls, uri: str | Path) -> "Dataset":
        """Raises NotFound where there is no dataset, StoreError for a newer format."""

    @classmethod
    def open_or_create(cls, uri: str | Path) -> "Dataset": ...

    def new_plan(self, kind: str, shards: Sequence[PlannedShard], settings: Mapping[str, object]) -> Plan:
        """Freezes a plan; the same kind, shards and settings give the plan that is already there."""

    def plan(self, plan_id: str) -> Plan: ...
    def plans(self) -> list[Plan]: ...

    def missing(self, plan: Plan) -> list[PlannedShard]:
        """The plan's shards without a commit record, in the plan's order: what is left to do."""

    def commits(self, plan: Plan) -> list[Commit]:
        """The plan's newest records."""

    def commit_of(self, address: str) -> Commit:
        """The record of `<plan>/<shard>.g<generation>`. Raises NotFound."""

    def write_images(
        self,
        plan: Plan,
        shard: PlannedShard,
        images: Iterable[tuple[ImageRecord, bytes]],
        rejects: Iterable[Reject] = (),
        *,
        stats: Mapping[str, object] | None = None,
        seconds: float = 0.0,
    ) -> Commit:
        """Writes and commits an image shard. `attempt_id` of the returned record says whose attempt won."""

    def write_masks(
        self,
        plan: Plan,
        shard: PlannedShard,
        images: Iterable[tuple[ImageRecord, Sequence[MaskRecord]]],
        rejects: Iterable[Reject] = (),
        stats: Mapping[str, object] | None = None,
        *,
        model_id: str = "",
        seconds: float = 0.0,
    ) -> Commit: ...

    def image_shards(self) -> list[Commit]:
        """Committed image shards; `Commit.address` is what a mask plan's PlannedShard.inputs name."""

    def read_images(self, shard: Commit | str) -> Iterator[tuple[ImageRecord, bytes]]:
        """Of a commit or its address."""

    def read_masks(self, shard: Commit | str) -> Iterator[tuple[ImageRecord, list[MaskRecord]]]: ...
    def read_mask(self, image_id: int, mask_id: int) -> MaskRecord: ...

    def known_image_ids(self) -> dict[int, str]:
        """image_id -> source_sha256 of every committed image."""

    def fold(self) -> "FoldReport":
        """Takes new commit records into the tables; anybody may call it, any time."""

    def query(self, sql: str, snapshot: str | None = None) -> pa.Table:
        """SQL over images, masks, shards, rejects. Raises ValueError, one line, for wrong SQL."""

    def snapshot(self) -> "Snapshot": ...
    def status(self) -> list["PlanStatus"]: ...
    def verify(self) -> "VerifyReport": ...
