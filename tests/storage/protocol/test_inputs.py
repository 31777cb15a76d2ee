"""What a shard is made from: every form is read as it was written, and nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.protocol.inputs import (
    ImageRange,
    ImageSet,
    Input,
    KeptOut,
    MaskKey,
    PhotoKey,
    PlanKind,
    ShardAddress,
    check_inputs,
    inputs_from_json,
    inputs_to_json,
)

NAMES = st.text("abcXYZ019-_", min_size=1, max_size=12)
IDS = st.integers(0, 2**63 - 1)
ADDRESSES = st.builds(ShardAddress, plan_id=NAMES, shard=NAMES, generation=st.integers(0, 99))
RANGES = st.builds(
    lambda shard, start, length: ImageRange(shard=shard, start=start, stop=start + length),
    ADDRESSES,
    st.integers(0, 500),
    st.integers(1, 300),
)
SETS = st.builds(
    lambda shard, places: ImageSet(shard=shard, places=tuple(sorted(places))),
    ADDRESSES,
    st.sets(st.integers(0, 500), min_size=1, max_size=20),
)
MASKS = st.builds(MaskKey, image_id=IDS, mask_id=IDS)
PHOTOS = st.builds(
    PhotoKey,
    source=st.text(st.characters(codec="utf-8"), min_size=1),
    place=st.text("0123456789abcdef", min_size=12, max_size=12),
    nbytes=st.integers(0, 2**40),
    mtime_ns=st.integers(-(2**60), 2**62),
)
IMAGE_INPUTS = ADDRESSES | RANGES | SETS | st.builds(KeptOut, mask=MASKS)


@given(st.lists(IMAGE_INPUTS))
def test_images_of_any_shards_and_masks_to_keep_out_are_read_as_they_were_written(inputs: list[Input]) -> None:
    assert inputs_from_json(PlanKind.MASKS, inputs_to_json(inputs)) == tuple(inputs)


@given(st.lists(PHOTOS))
def test_photos_with_any_name_are_read_as_they_were_written(photos: list[PhotoKey]) -> None:
    assert inputs_from_json(PlanKind.IMAGES, inputs_to_json(photos)) == tuple(photos)


@given(st.lists(MASKS))
def test_masks_are_read_as_they_were_written(masks: list[MaskKey]) -> None:
    assert inputs_from_json(PlanKind.WITHDRAWALS, inputs_to_json(masks)) == tuple(masks)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (PlanKind.MASKS, ["0:4"]),  # images of no shard
        (PlanKind.MASKS, ["p/s.g0", "4:4"]),
        (PlanKind.MASKS, ["p/s.g0", "5:4"]),
        (PlanKind.MASKS, ["p/s.g0", "3,1"]),
        (PlanKind.MASKS, ["p/s.g0", "1,1"]),
        (PlanKind.MASKS, ["p/s.g0", "1,"]),
        (PlanKind.MASKS, ["p/s.g0", "0:4", "4:8"]),
        (PlanKind.MASKS, ["../s.g0"]),
        (PlanKind.MASKS, ["p/s.g0\n"]),
        (PlanKind.MASKS, ["p/s.g-1"]),
        (PlanKind.MASKS, ["!1"]),
        (PlanKind.MASKS, [f"!{2**63}/1"]),
        (PlanKind.MASKS, ["1/2"]),
        (PlanKind.WITHDRAWALS, ["1/2/3"]),
        (PlanKind.WITHDRAWALS, ["-1/2"]),
        (PlanKind.IMAGES, ["photo.jpg"]),
        (PlanKind.IMAGES, ["photo.jpg\tabc\t1\t2"]),
        (PlanKind.IMAGES, ["\t" + "0" * 12 + "\t1\t2"]),
        (PlanKind.IMAGES, ["photo.jpg\t" + "0" * 12 + "\t01\t2"]),
        (PlanKind.IMAGES, ["photo.jpg\t" + "0" * 12 + "\t1\ttoday"]),
    ],
)
def test_a_text_of_no_known_form_is_refused(kind: PlanKind, texts: list[str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        inputs_from_json(kind, texts)


def test_inputs_of_another_kind_of_plan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a shard of images cannot be made from MaskKey 1/2; expected PhotoKey"):
        check_inputs(PlanKind.IMAGES, [MaskKey(image_id=1, mask_id=2)])


def test_an_address_knows_its_lineage_and_the_generation_before() -> None:
    address = ShardAddress.parse("masks-ab12/000003.g2")
    assert (address.lineage, str(address.before), address.kind) == (
        "masks-ab12/000003",
        "masks-ab12/000003.g1",
        "masks",
    )
    assert ShardAddress.of_key(address.key) == address
    with pytest.raises(ValueError, match="replaces none"):
        _ = ShardAddress(plan_id="p", shard="s").before
