"""The masks of a task, computed from its operations alone.

Payloads by kind; what else a client sends along, such as the hashes of image and model, is stored and not read here:

    add, change     mask (name), rle; also origin, model_id, predicted_iou, stability_score, prompts, clicks, strokes
    remove          mask
    accept, reject  mask, one that was prefilled
    merge           masks (names of two or more), mask (new name), rle
    split           mask, into: a list of two or more {mask (new name), rle}
    undo, redo      nothing
    fix             submission, fixed_by, masks, rejected: what a reviewer begins with; the server alone makes this one
    activity        inputs: [[seconds, mask or null], ...], hidden: [[seconds, seconds], ...], by the client's clock
    note            text

`clicks` and `strokes` count those of one operation; the fold adds them up. An operation that does not fit the state,
such as removing a mask that is gone, changes nothing and is counted as ignored. So every sequence has a result.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from storage.rle import Rle
from storage.workspace.masks import mask_from_json, mask_to_json
from storage.workspace.records import PASSIVE, GivenMask, Kind, Operation, Origin


@dataclass(frozen=True, kw_only=True)
class TaskMask:
    """One mask of a task, as the annotator sees it."""

    mask: str
    """Name of the mask, unique within the task."""
    rle: Rle
    """Pixels of the mask."""
    origin: Origin
    """Way in which the mask came about. A prefilled mask counts as accepted until it is edited or rejected."""
    decided: bool = False
    """Whether the annotator accepted the prefilled mask in so many words; True for masks that were made or edited."""
    model_id: str = ""
    """Id of the model version that answered the annotator's prompts, or prefilled; empty where no model did."""
    predicted_iou: float | None = None
    """The model's own estimate of the mask's IoU; None for a mask without an estimate, such as a brushed one."""
    stability_score: float | None = None
    """Stability of the mask, in [0, 1]; None for a mask without a score."""
    prompts: tuple[Any, ...] = ()
    """Prompts of the last operation that set the mask, as JSON values."""
    clicks: int = 0
    """Number of clicks over all operations on the mask."""
    strokes: int = 0
    """Number of strokes of brush and eraser over all operations on the mask."""
    edits: int = 0
    """Number of operations that changed the mask after its first appearance."""
    source: str = ""
    """Mask of the dataset that was prefilled, as `<image_id>/<mask_id>`; empty for any other."""
    parents: tuple[str, ...] = ()
    """Names of the prefilled masks that it was, or was made of; empty for a mask that was made."""
    author: str = ""
    """Annotator whose mask a reviewer found; empty for the annotator of the line."""
    fixed_by: str = ""
    """Reviewer who last changed, rejected or removed the author's mask; empty for none."""


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """State of an annotator's line on a task."""

    masks: tuple[TaskMask, ...]
    """Masks in the order in which they appeared."""
    rejected: tuple[TaskMask, ...]
    """Prefilled masks that the annotator rejected or removed."""
    revision: int
    """Number of operations on the line; passive ones do not count."""
    can_undo: bool
    can_redo: bool
    ignored: int
    """Number of operations that did not fit the state they met."""
    fixes: int | None = None
    """Submission that a reviewer fixes on the line; None for an annotator's own work."""
    fix_revision: int = 0
    """Revision of the line at which the fix began; 0 without one."""


Masks = Mapping[str, TaskMask]


@dataclass(frozen=True, kw_only=True)
class _Step:
    """Masks by name after one operation, and the prefilled masks that are gone."""

    masks: Masks
    rejected: Masks
    fixer: str = ""
    """Reviewer whose line fixes another annotator's masks; empty for a line of own work."""


def fold(given: Iterable[GivenMask], operations: Iterable[Operation]) -> TaskState:
    """Compute the state of a line from the prefilled masks and its operations, in their order."""
    steps = [_Step(masks={each.mask: _prefilled(each) for each in given}, rejected={})]
    here = revision = ignored = fix_revision = 0
    fixes: int | None = None
    for operation in operations:
        if operation.kind in PASSIVE:
            continue
        revision += 1
        if operation.kind is Kind.FIX:
            steps, here, fits = [_fixing(operation.payload)], 0, True
            fixes, fix_revision = operation.payload["submission"], revision
        elif operation.kind in (Kind.UNDO, Kind.REDO):
            there = here + (1 if operation.kind is Kind.REDO else -1)
            fits = 0 <= there < len(steps)
            here = there if fits else here
        else:
            step = _APPLY[operation.kind](steps[here], operation.payload)
            fits = step is not None
            if step is not None:
                steps[here + 1 :] = [step]
                here += 1
        ignored += not fits
    return TaskState(
        masks=tuple(steps[here].masks.values()),
        rejected=tuple(steps[here].rejected.values()),
        revision=revision,
        can_undo=here > 0,
        can_redo=here < len(steps) - 1,
        ignored=ignored,
        fixes=fixes,
        fix_revision=fix_revision,
    )


def fix_payload(submission_id: int, annotator: str, state: TaskState, *, fixed_by: str) -> dict[str, Any]:
    """Make the payload of the operation that begins a fix: the masks of a submission, each with who made it."""

    def write(mask: TaskMask) -> dict[str, Any]:
        return {**vars(mask), "rle": mask_to_json(mask.rle), "author": mask.author or annotator}

    masks, rejected = ([write(mask) for mask in some] for some in (state.masks, state.rejected))
    return {"submission": submission_id, "fixed_by": fixed_by, "masks": masks, "rejected": rejected}


def _fixing(payload: Mapping[str, Any]) -> _Step:
    def read(mask: Mapping[str, Any]) -> TaskMask:
        typed = {"rle": mask_from_json(mask["rle"]), "origin": Origin(mask["origin"])}
        listed = {name: tuple(mask.get(name, ())) for name in ("prompts", "parents")}  # earlier fixes name no parents
        return TaskMask(**{**mask, **typed, **listed})

    masks, rejected = ({each["mask"]: read(each) for each in payload[name]} for name in ("masks", "rejected"))
    return _Step(masks=masks, rejected=rejected, fixer=payload["fixed_by"])


def _prefilled(given: GivenMask) -> TaskMask:
    return TaskMask(
        mask=given.mask,
        rle=given.rle,
        origin=Origin.PREFILL_ACCEPTED,
        model_id=given.model_id,
        predicted_iou=given.predicted_iou,
        stability_score=given.stability_score,
        source=given.source,
        parents=(given.mask,),
    )


def _add(step: _Step, payload: Mapping[str, Any]) -> _Step | None:
    name = payload["mask"]
    if name in step.masks or name in step.rejected:
        return None
    origin = Origin(payload.get("origin", Origin.MADE))
    return replace(step, masks={**step.masks, name: _made(name, payload, origin)})


def _change(step: _Step, payload: Mapping[str, Any]) -> _Step | None:
    old = step.masks.get(payload["mask"])
    if old is None:
        return None
    new = _made(old.mask, payload, Origin.MADE if old.origin is Origin.MADE else Origin.PREFILL_EDITED)
    new = replace(
        new,
        clicks=old.clicks + new.clicks,
        strokes=old.strokes + new.strokes,
        edits=old.edits + 1,
        source=old.source,
        parents=old.parents,
        model_id=new.model_id or old.model_id,
        author=old.author,
        fixed_by=_fixed_by(step, old),
    )
    return replace(step, masks={**step.masks, old.mask: new})


def _remove(step: _Step, payload: Mapping[str, Any]) -> _Step | None:
    return _without(step, [payload["mask"]])


def _accept(step: _Step, payload: Mapping[str, Any]) -> _Step | None:
    old = step.masks.get(payload["mask"])
    if old is None or old.origin is not Origin.PREFILL_ACCEPTED:
        return None
    return replace(step, masks={**step.masks, old.mask: replace(old, decided=True)})


def _reject(step: _Step, payload: Mapping[str, Any]) -> _Step | None:
    old = step.masks.get(payload["mask"])
    return None if old is None or old.origin is Origin.MADE else _without(step, [old.mask])


def _merge(step: _Step, payload: Mapping[str, Any]) -> _Step | None:
    olds = [step.masks[name] for name in payload["masks"] if name in step.masks]
    if len(olds) < len(payload["masks"]) or _is_taken(step, payload["mask"], besides=payload["masks"]):
        return None
    origin = Origin.MADE if all(old.origin is Origin.MADE for old in olds) else Origin.PREFILL_EDITED
    merged = _made(payload["mask"], payload, origin)
    merged = replace(
        merged,
        clicks=merged.clicks + sum(old.clicks for old in olds),
        strokes=merged.strokes + sum(old.strokes for old in olds),
        edits=1 + sum(old.edits for old in olds),
        source=next((old.source for old in olds if old.source), ""),
        parents=tuple(name for old in olds for name in old.parents),
        author=olds[0].author,
        fixed_by=_fixed_by(step, olds[0]),
    )
    left = {name: mask for name, mask in step.masks.items() if name not in payload["masks"]}
    return replace(step, masks={**left, merged.mask: merged})


def _split(step: _Step, payload: Mapping[str, Any]) -> _Step | None:
    old = step.masks.get(payload["mask"])
    names = [part["mask"] for part in payload["into"]]
    if old is None or any(_is_taken(step, name, besides=[old.mask]) for name in names):
        return None
    origin = Origin.MADE if old.origin is Origin.MADE else Origin.PREFILL_EDITED
    parts = {}
    for number, part in enumerate(payload["into"]):
        made = replace(
            _made(part["mask"], part, origin),
            model_id=old.model_id,
            edits=old.edits + 1,
            parents=old.parents,
            author=old.author,
            fixed_by=_fixed_by(step, old),
        )
        # The first part inherits the work, so that the sum over masks stays the sum over operations.
        parts[made.mask] = replace(made, clicks=old.clicks, strokes=old.strokes) if number == 0 else made
    left = {name: mask for name, mask in step.masks.items() if name != old.mask}
    return replace(step, masks={**left, **parts})


_APPLY: Mapping[Kind, Callable[[_Step, Mapping[str, Any]], _Step | None]] = {
    Kind.ADD: _add,
    Kind.CHANGE: _change,
    Kind.REMOVE: _remove,
    Kind.ACCEPT: _accept,
    Kind.REJECT: _reject,
    Kind.MERGE: _merge,
    Kind.SPLIT: _split,
}


def _made(name: str, payload: Mapping[str, Any], origin: Origin) -> TaskMask:
    return TaskMask(
        mask=name,
        rle=mask_from_json(payload["rle"]),
        origin=origin,
        decided=True,
        model_id=payload.get("model_id", ""),
        predicted_iou=payload.get("predicted_iou"),
        stability_score=payload.get("stability_score"),
        prompts=tuple(payload.get("prompts", ())),
        clicks=payload.get("clicks", 0),
        strokes=payload.get("strokes", 0),
    )


def _without(step: _Step, names: list[str]) -> _Step | None:
    gone = {name: step.masks[name] for name in names if name in step.masks}
    if not gone:
        return None
    prefilled = {
        name: replace(mask, fixed_by=_fixed_by(step, mask))
        for name, mask in gone.items()
        if mask.origin is not Origin.MADE
    }
    left = {name: mask for name, mask in step.masks.items() if name not in gone}
    return replace(step, masks=left, rejected={**step.rejected, **prefilled})


def _fixed_by(step: _Step, old: TaskMask) -> str:
    """Return the reviewer to name for a change of a mask; empty for a mask of the line's own annotator."""
    return step.fixer if old.author else ""


def _is_taken(step: _Step, name: str, *, besides: Iterable[str]) -> bool:
    return (name in step.masks or name in step.rejected) and name not in besides
