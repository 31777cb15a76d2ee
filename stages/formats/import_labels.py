"""Import of labels: photos are ingested, and their masks become mask shards of the stage `imported`.

labels -> image of each photo -> plan -> a shard for each 256 images -> fold

A plan is known by the bytes of the label file, whatever its name and folder. So a second call of the same command adds
nothing, and continues where the first one stopped. Of another file, only those masks are stored that the dataset does
not have already, pixel by pixel.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from stages.formats.labels import LabelledMask, Labels, LeftOut
from stages.formats.photos import MatchedPhoto, match_photos
from stages.ingest.config import IngestConfig
from stages.ingest.ingest import IngestProgress
from stages.rounds.shards import inputs_at, locate
from storage import rle
from storage.dataset import Dataset
from storage.errors import StoreError
from storage.protocol.commits import Commit, new_attempt_id
from storage.protocol.inputs import ImageRange, ImageSet, PlanKind, ShardAddress, image_inputs, image_shard
from storage.protocol.plans import Plan, PlannedShard
from storage.records import ImageRecord, MaskRecord, Provenance, Stage, mask_id_of
from storage.tables.samples import MASK_COLUMNS, read_masks
from storage.tables.sql import is_shard

MAX_IMAGES = 256
"""Most images in one mask shard, and so the most work that an interruption costs."""
_BOX = ("area_px", "x0", "y0", "x1", "y1")
_Mark = tuple[int, ...]
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, kw_only=True)
class ImportProgress:
    """Progress of an import, in images with masks."""

    done: int
    total: int
    new: int
    masks: int
    """Number of masks that this call has stored."""


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Counts of what became of the labels, in this call and in earlier calls."""

    form: str
    """Name of the format."""
    photos: int
    """Number of photos that the file names."""
    new_images: int
    """Number of images that this call put into the dataset."""
    images: int
    """Number of images with masks of the file, planned and stored."""
    masks: int
    """Number of masks of the file that were stored."""
    new_masks: int
    """Number of those that this call stored."""
    there_already: int
    """Number of masks that the dataset held already, pixel by pixel, and that were not stored again."""
    masks_left_out: Mapping[str, int]
    """Number of annotations that could not be taken, by reason."""
    left_out: tuple[LeftOut, ...]
    """Annotations and photos that could not be taken, each with its name."""
    categories: Mapping[str, int]
    """Number of masks by category. The masks are stored without it; the statistics of their shards keep these counts.
    """
    plans: tuple[str, ...]
    """Ids of the plans whose shards hold the masks."""
    seconds: float
    """Duration of this call in seconds."""


def sum_reports(reports: Sequence[ImportReport]) -> ImportReport:
    """Sum up the reports of the files that one command took."""
    if len(reports) == 1:
        return reports[0]
    numbers = ("photos", "new_images", "images", "masks", "new_masks", "there_already", "seconds")
    categories = Counter[str]()
    for report in reports:
        categories.update(report.categories)
    left_out = [each for report in reports for each in report.left_out]
    return ImportReport(
        form=reports[0].form,
        masks_left_out=_count_by_reason(left_out),
        left_out=tuple(left_out),
        categories=dict(sorted(categories.items())),
        plans=tuple(plan for report in reports for plan in report.plans),
        **{name: sum(getattr(report, name) for report in reports) for name in numbers},
    )


def import_labels(
    dataset: Dataset,
    labels: Labels,
    folder: Path | None = None,
    *,
    ingest: IngestConfig | None = None,
    on_photo: Callable[[IngestProgress], None] | None = None,
    on_images: Callable[[ImportProgress], None] = lambda _: None,
) -> ImportReport:
    """Take labels and their photos into a dataset; a second call continues where the first one stopped.

    Args:
        dataset: The dataset.
        labels: The labels.
        folder: Folder that the photos' names are relative to; None for the labels' own.
        ingest: Settings of the ingest of photos, but for their size, which they keep; None for the default ones.
        on_photo: Function that is called after each photo that is ingested.
        on_images: Function that is called after each mask shard.

    Raises:
        StoreError: The dataset cannot be read or written.
        ValueError: A photo of an unfinished earlier call is gone.
    """
    began = time.perf_counter()
    matched = match_photos(dataset, labels, folder or labels.folder, ingest or IngestConfig(), on_photo)
    by_id = {photo.image.image_id: photo for photo in matched.photos if photo.labels.num_masks}
    plans = _plan(dataset, labels, list(by_id))

    new_masks = done = new = 0
    total = sum(_count_images(shard) for plan in plans for shard in plan.shards)
    todo = [(plan, shard) for plan in plans for shard in dataset.missing(plan)]
    done = total - sum(_count_images(shard) for _, shard in todo)
    for plan, shard in todo:
        new_masks += _write_shard(dataset, plan, shard, by_id)
        done, new = done + _count_images(shard), new + _count_images(shard)
        on_images(ImportProgress(done=done, total=total, new=new, masks=new_masks))

    waiting = {str(plan.address(shard)) for plan, shard in todo}.intersection(dataset.fold().set_aside)
    if waiting:
        raise StoreError(f"{dataset.uri}: shard {min(waiting)} cannot be folded; `gigamask verify` names what is lost")
    commits = {commit.address: commit for plan in plans for commit in dataset.commits(plan)}
    left_out = [*labels.left_out, *matched.left_out]
    left_out += [LeftOut(**entry) for commit in commits.values() for entry in _stat(commit, "left_out", list)]
    categories = Counter[str]()
    for commit in commits.values():
        categories.update(_stat(commit, "categories", dict))
    return ImportReport(
        form=labels.form,
        photos=len(labels.photos),
        new_images=matched.new_images,
        images=sum(commit.images for commit in commits.values()),
        masks=sum(commit.masks for commit in commits.values()),
        new_masks=new_masks,
        there_already=sum(_stat(commit, "there_already", int) for commit in commits.values()),
        masks_left_out=_count_by_reason(left_out),
        left_out=tuple(left_out),
        categories=dict(sorted(categories.items())),
        plans=tuple(plan.plan_id for plan in plans),
        seconds=time.perf_counter() - began,
    )


def _plan(dataset: Dataset, labels: Labels, image_ids: Sequence[int]) -> list[Plan]:
    """Return the earlier plans of the same label file, and a new one for images that no plan covers."""
    settings: dict[str, object] = {
        "stage": Stage.IMPORTED,
        "format": labels.form,
        "sha256": labels.sha256,
        "file": labels.file,
        **labels.options,
    }
    every = [plan for plan in dataset.plans() if plan.kind is PlanKind.MASKS]
    plans = [plan for plan in every if {**plan.settings, "file": ""} == {**settings, "file": ""}]
    if plans:
        settings = dict(plans[0].settings)  # its name when it was first imported
    for plan in [plan for plan in plans if not plan.redoes]:
        given_up = [record.shard for record in dataset.commits(plan, given_up=True) if not record.attempt_id]
        if given_up:
            redo = dataset.maintenance.plan_redo(plan, given_up)
            plans += [redo] if redo.plan_id not in {each.plan_id for each in plans} else []
    places = locate(dataset, image_ids)
    covered = {
        (image_shard(images).lineage, place)
        for plan in plans
        for shard in plan.shards
        for images in image_inputs(shard.inputs)
        for place in cast(ImageRange | ImageSet, images).places
    }
    fresh = [place for place in places.values() if (place[0].lineage, place[1]) not in covered]
    if fresh:
        groups = [fresh[start : start + MAX_IMAGES] for start in range(0, len(fresh), MAX_IMAGES)]
        shards = [PlannedShard.from_inputs(*inputs_at(group)) for group in groups]
        plans.append(dataset.new_plan(PlanKind.MASKS, shards, settings))
    return plans


def _count_images(shard: PlannedShard) -> int:
    return sum(len(cast(ImageSet, images).places) for images in image_inputs(shard.inputs))


def _write_shard(dataset: Dataset, plan: Plan, shard: PlannedShard, by_id: Mapping[int, MatchedPhoto]) -> int:
    """Write and commit the masks of one shard's images; return how many this call stored.

    Raises:
        ValueError: A photo that was planned is gone.
    """
    began = time.perf_counter()
    photos = [_photo_of(by_id, image_id, plan) for image_id in _image_ids(dataset, shard)]

    # Read the masks, and leave out what is none or is there already
    left_out, categories = list[LeftOut](), Counter[str]()
    read: dict[int, list[LabelledMask]] = {}
    for photo in photos:
        found = photo.labels.read(photo.image.height, photo.image.width)
        left_out += [*found.left_out, *(_empty(mask) for mask in found.masks if not rle.area(mask.rle))]
        read[photo.image.image_id] = [mask for mask in found.masks if rle.area(mask.rle)]
    fresh, there_already = _without_stored(dataset, read, plan.address(shard))

    # Commit the others
    content = list[tuple[ImageRecord, list[MaskRecord]]]()
    for photo in photos:
        image = photo.image
        masks = fresh[image.image_id]
        categories.update(mask.category for mask in masks if mask.category)
        names = [(plan.home, shard.name, shard.generation, image.image_id, ordinal) for ordinal in range(len(masks))]
        content.append(
            (image, [_record(mask, mask_id_of(*name), image, plan) for mask, name in zip(masks, names, strict=True)])
        )
    stats = {
        "left_out": [each.to_json() for each in left_out],
        "there_already": there_already,
        "categories": dict(sorted(categories.items())),
    }
    attempt_id = new_attempt_id(shard)
    seconds = time.perf_counter() - began
    commit = dataset.write_masks(plan, shard, content, stats=stats, seconds=seconds, attempt_id=attempt_id)
    return commit.masks if commit.attempt_id == attempt_id else 0


def _photo_of(by_id: Mapping[int, MatchedPhoto], image_id: int, plan: Plan) -> MatchedPhoto:
    if image_id not in by_id:
        raise ValueError(
            f"plan {plan.plan_id} was to import masks of image {image_id:016x}, whose photo is no longer found; "
            "put the photo back, or give its folder, and run this again"
        )
    return by_id[image_id]


def _image_ids(dataset: Dataset, shard: PlannedShard) -> list[int]:
    """List the ids of a shard's images, without those that were erased since it was planned."""
    erased = dataset.erasures().images
    found = list[int]()
    for images in image_inputs(shard.inputs):
        ids = dataset.image_ids_in(dataset.commit_of(image_shard(images)))
        found += [ids[place] for place in cast(ImageSet, images).places if ids[place] not in erased]
    return found


def _empty(mask: LabelledMask) -> LeftOut:
    return LeftOut(what=mask.what, reason="empty", detail="it covers no pixel of its image")


def _without_stored(
    dataset: Dataset, read: Mapping[int, Iterable[LabelledMask]], own: ShardAddress
) -> tuple[dict[int, list[LabelledMask]], int]:
    """Leave out masks that the dataset has of the same image, and masks that the file has twice; count them.

    Masks of an earlier generation of the shard do not count: the shard takes their place.
    """
    marked = {image_id: [(_mark(mask), mask) for mask in masks] for image_id, masks in read.items()}
    marks = {(image_id, mark) for image_id, some in marked.items() for mark, _ in some}
    named = f"image_id IN ({', '.join(map(str, read))})" if read else "false"
    where = f"{named} AND NOT ({is_shard(own.plan_id, own.shard)})"
    rows: list[Any] = []
    for batch in dataset.masks(where, columns=[*MASK_COLUMNS, *_BOX]):
        rows += [row for row in batch.to_pylist() if (row["image_id"], tuple(row[name] for name in _BOX)) in marks]
    known: dict[int, set[rle.Rle]] = {image_id: set() for image_id in read}
    for stored in read_masks(dataset.store, rows):
        known[stored.image_id].add(_canonical(stored.rle))

    fresh: dict[int, list[LabelledMask]] = {image_id: [] for image_id in read}
    there_already = 0
    for image_id, some in marked.items():
        for _, mask in some:
            pixels = _canonical(mask.rle)
            if pixels in known[image_id]:
                there_already += 1
            else:
                known[image_id].add(pixels)
                fresh[image_id].append(mask)
    return fresh, there_already


def _mark(mask: LabelledMask) -> _Mark:
    return (rle.area(mask.rle), *rle.box_xyxy(mask.rle))


def _canonical(mask: rle.Rle) -> rle.Rle:
    """Return the one form of a mask's run lengths in which no run but the first is empty."""
    return mask if mask.counts[1:].all() else rle.merge([mask])


def _record(mask: LabelledMask, mask_id: int, image: ImageRecord, plan: Plan) -> MaskRecord:
    pixels = _canonical(mask.rle)
    return MaskRecord(
        mask_id=mask_id,
        image_id=image.image_id,
        rle=pixels,
        box_xyxy=rle.box_xyxy(pixels),
        area_px=rle.area(pixels),
        predicted_iou=mask.predicted_iou,
        stability_score=mask.stability_score,
        point_xy=mask.point_xy,
        crop_xyxy=mask.crop_xyxy or (0, 0, image.width, image.height),
        provenance=Provenance(stage=Stage.IMPORTED, plan_id=plan.plan_id, config_hash=plan.settings_hash),
    )


def _count_by_reason(left_out: Iterable[LeftOut]) -> dict[str, int]:
    counts = Counter[str]()
    for each in left_out:
        counts[each.reason] += each.masks
    return dict(counts.most_common())


def _stat(commit: Commit, name: str, kind: type[_Kind]) -> _Kind:
    value = commit.stats.get(name, kind())
    assert isinstance(value, kind), f"{name} of {commit.address} is {value!r}"
    return value
