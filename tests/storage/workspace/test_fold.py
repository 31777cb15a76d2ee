"""The fold of operations, as examples and as laws that hold for every sequence."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from storage import rle
from storage.workspace.checking import check_operations
from storage.workspace.fold import TaskState, fix_payload, fold
from storage.workspace.records import PASSIVE, GivenMask, Kind, Operation, Origin
from tests.workspaces import HEIGHT, WIDTH, Page, made, operation, rectangle

PREFILL = tuple(GivenMask(mask=f"p{number}", rle=rectangle(x=number), model_id="seed-1") for number in range(3))


def state(*steps: tuple[str, dict[str, Any]]) -> TaskState:
    page = Page()
    return fold(PREFILL, [page(kind, payload) for kind, payload in steps])


def origins(folded: TaskState) -> dict[str, Origin]:
    return {mask.mask: mask.origin for mask in folded.masks}


def test_a_task_begins_with_its_prefilled_masks_not_yet_decided() -> None:
    begun = state()
    assert origins(begun) == dict.fromkeys(("p0", "p1", "p2"), Origin.PREFILL_ACCEPTED)
    assert not any(mask.decided for mask in begun.masks)
    assert (begun.can_undo, begun.can_redo) == (False, False)


def test_made_accepted_and_edited_masks_are_told_apart() -> None:
    folded = state(
        ("add", made("a", clicks=3)),
        ("accept", {"mask": "p0"}),
        ("change", made("p1", clicks=1, strokes=2)),
        ("reject", {"mask": "p2"}),
        ("change", made("a", clicks=1)),
    )
    assert origins(folded) == {"a": "made", "p0": "prefill_accepted", "p1": "prefill_edited"}
    masks = {mask.mask: mask for mask in folded.masks}
    assert (masks["a"].clicks, masks["a"].edits) == (4, 1)
    assert (masks["p1"].clicks, masks["p1"].strokes, masks["p1"].model_id) == (1, 2, "seed-1")
    assert [mask.mask for mask in folded.rejected] == ["p2"]


def test_merging_and_splitting_keep_the_work_and_the_origin() -> None:
    merged = state(("add", made("a", clicks=2)), ("merge", made("m", masks=["a", "p0"], clicks=1)))
    (mask,) = (each for each in merged.masks if each.mask == "m")
    assert (mask.clicks, mask.origin) == (3, Origin.PREFILL_EDITED)
    split = state(("add", made("a", clicks=2)), ("split", {"mask": "a", "into": [made("b"), made("c")]}))
    assert [(each.mask, each.clicks) for each in split.masks if each.origin == "made"] == [("b", 2), ("c", 0)]


def test_undo_and_redo_walk_through_the_steps() -> None:
    steps: tuple[tuple[str, dict[str, Any]], ...] = (("add", made("a")), ("add", made("b")), ("undo", {}))
    assert [mask.mask for mask in state(*steps).masks][3:] == ["a"]
    assert [mask.mask for mask in state(*steps, ("redo", {})).masks][3:] == ["a", "b"]
    after = state(*steps, ("add", made("c")), ("redo", {}))
    assert [mask.mask for mask in after.masks][3:] == ["a", "c"]
    assert after.ignored == 1


def test_what_does_not_fit_changes_nothing_and_is_counted() -> None:
    folded = state(
        ("remove", {"mask": "gone"}),
        ("change", made("gone")),
        ("accept", {"mask": "gone"}),
        ("merge", made("m", masks=["p0", "gone"])),
        ("split", {"mask": "gone", "into": [made("b"), made("c")]}),
        ("add", made("p0")),
        ("undo", {}),
    )
    assert (origins(folded), folded.ignored, folded.revision) == (origins(state()), 7, 7)


_NAMES = st.sampled_from(["a", "b", "c", "p0", "p1", "p2"])
_MADE = st.builds(
    lambda name, x, clicks: made(name, rectangle(x=x), clicks=clicks), _NAMES, st.integers(0, 9), st.integers(0, 3)
)
_TWO_NAMES = st.lists(_NAMES, min_size=2, max_size=3, unique=True)
_STEPS = st.one_of(
    st.tuples(st.sampled_from(["add", "change"]), _MADE),
    st.tuples(st.sampled_from(["remove", "accept", "reject"]), _NAMES.map(lambda name: {"mask": name})),
    st.tuples(st.just("merge"), st.builds(lambda payload, names: payload | {"masks": names}, _MADE, _TWO_NAMES)),
    st.tuples(
        st.just("split"),
        st.builds(lambda name, names: {"mask": name, "into": [made(each) for each in names]}, _NAMES, _TWO_NAMES),
    ),
    st.tuples(st.sampled_from(["undo", "redo"]), st.just({})),
    st.tuples(st.just("note"), st.just({"text": "x"})),
)
SEQUENCES = st.lists(_STEPS, max_size=30)


def as_operations(steps: list[tuple[str, dict[str, Any]]]) -> list[Operation]:
    return [
        Operation(
            op_id=f"01900000-0000-7000-8000-{number:012x}",
            session="page",
            sequence=number,
            base_revision=0,
            kind=Kind(kind),
            payload=payload,
            client_time=datetime.now(UTC),
        )
        for number, (kind, payload) in enumerate(steps)
    ]


@given(SEQUENCES)
def test_every_sequence_has_a_state_of_whole_masks(steps: list[tuple[str, dict[str, Any]]]) -> None:
    folded = fold(PREFILL, check_operations(as_operations(steps), (HEIGHT, WIDTH)))
    names = [mask.mask for mask in folded.masks]
    assert len(set(names)) == len(names)
    assert not set(names) & {mask.mask for mask in folded.rejected}
    assert all(rle.area(mask.rle) for mask in folded.masks)
    assert {mask.mask for mask in folded.rejected if mask.origin == Origin.MADE} == set()
    assert folded.revision == sum(kind not in PASSIVE for kind, _ in steps)


@given(SEQUENCES)
def test_folding_twice_gives_the_same_state(steps: list[tuple[str, dict[str, Any]]]) -> None:
    operations = as_operations(steps)
    assert fold(PREFILL, operations) == fold(PREFILL, list(operations))


@given(SEQUENCES, _STEPS)
def test_an_undo_takes_back_exactly_the_step_before_it(
    steps: list[tuple[str, dict[str, Any]]], step: tuple[str, dict[str, Any]]
) -> None:
    before = fold(PREFILL, as_operations(steps))
    done = fold(PREFILL, as_operations([*steps, step]))
    if step[0] in ("undo", "redo") or step[0] in PASSIVE or done.ignored > before.ignored:
        return
    undone = fold(PREFILL, as_operations([*steps, step, ("undo", {})]))
    redone = fold(PREFILL, as_operations([*steps, step, ("undo", {}), ("redo", {})]))
    assert (undone.masks, undone.rejected) == (before.masks, before.rejected)
    assert (redone.masks, redone.rejected) == (done.masks, done.rejected)


@given(SEQUENCES)
def test_undoing_everything_leads_back_to_the_prefilled_masks(steps: list[tuple[str, dict[str, Any]]]) -> None:
    folded = fold(PREFILL, as_operations([*steps, *[("undo", {})] * len(steps)]))
    assert folded.masks == state().masks
    assert folded.rejected == ()


@given(SEQUENCES)
def test_passive_operations_change_no_mask(steps: list[tuple[str, dict[str, Any]]]) -> None:
    without = [step for step in steps if step[0] not in PASSIVE]
    assert fold(PREFILL, as_operations(steps)) == fold(PREFILL, as_operations(without))


def test_each_mask_names_the_prefilled_masks_that_it_was_made_of() -> None:
    prefill = [GivenMask(mask=f"p{number}", rle=rectangle(x=number)) for number in range(4)]
    operations = [
        operation("change", made("p0")),
        operation("merge", {**made("both"), "masks": ["p1", "p0"]}),
        operation("split", {"mask": "p2", "into": [made("left"), made("right")]}),
        operation("add", made("new")),
    ]
    folded = fold(prefill, operations)
    assert {mask.mask: mask.parents for mask in folded.masks} == {
        "p3": ("p3",),
        "both": ("p1", "p0"),
        "left": ("p2",),
        "right": ("p2",),
        "new": (),
    }
    payload = json.loads(json.dumps(fix_payload(7, "ann", folded, fixed_by="rita")))
    fixed = fold((), [operation("fix", payload), operation("change", made("left"))])
    assert {mask.mask: mask.parents for mask in fixed.masks} == {mask.mask: mask.parents for mask in folded.masks}
    for mask in payload["masks"]:
        del mask["parents"]  # as earlier versions stored a fix
    assert {mask.parents for mask in fold((), [operation("fix", payload)]).masks} == {()}
