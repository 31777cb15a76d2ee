"""The masks of closed rounds as training data: weights by correction, rejected masks, one image in some held out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.training.sources import WindowConfig
from stages.rounds.close import close_round
from stages.training.round_source import (
    UNCORRECTED_WEIGHT,
    RoundImage,
    RoundSource,
    count_round_images,
    count_round_masks,
    held_out_images,
    read_round_images,
    rounds_in,
    sort_by_content,
)
from stages.training.snapshot_source import SplitSide
from storage import rle
from storage.dataset import Dataset
from storage.workspace.records import GivenMask
from storage.workspace.workspace import Workspace
from tests.small_dataset import small_dataset
from tests.stages.rounds.answering import answer_all, image_ids, small_round, square
from tests.workspaces import Page, made

TRAINING = SplitSide(held_out_every=3, held_out=False)
HELD_OUT = SplitSide(held_out_every=3, held_out=True)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    opened = small_dataset(tmp_path / "dataset")
    opened.fold()
    return opened


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace.sqlite", max_held=100) as opened:
        opened.users.add("ann", "annotator")
        yield opened


def close_manual_round(dataset: Dataset, workspace: Workspace, ids: list[int], *, squares: int = 2) -> str:
    opened = small_round(workspace, ids)
    answer_all(workspace, "ann", squares=squares)
    close_round(dataset, workspace, opened.round_id)
    return opened.round_id


def close_corrected_round(dataset: Dataset, workspace: Workspace) -> tuple[str, int]:
    """Close a round of one image with two masks of the dataset: one is rejected, one edited, one mask is new."""
    image_id = next(row["image_id"] for row in dataset.query("SELECT image_id FROM masks ORDER BY 1").to_pylist())
    rows = dataset.masks_of_image(image_id).to_pylist()
    by_size = sorted((dataset.read_mask(image_id, row["mask_id"]) for row in rows), key=lambda mask: mask.area_px)
    small, large = by_size[0], by_size[-1]
    prefill = tuple(
        GivenMask(mask=name, rle=mask.rle, model_id="one-1", source=f"{image_id}/{mask.mask_id}")
        for name, mask in (("small", small), ("large", large))
    )
    opened = small_round(workspace, [image_id], prefill=prefill, stage="semi_automatic")
    (lease,) = workspace.leases.claim("ann")
    page = Page(base=lease.revision, session="page")
    half = rle.decode(large.rle)
    half[:, 24:] = False
    corrected = made("large", rle.encode(half), clicks=1)
    far = np.zeros_like(half)
    far[50:60, 50:60] = True
    operations = [page("reject", {"mask": "small"}), page("change", corrected)]
    operations.append(page("add", made("new", rle.encode(far), clicks=1)))
    workspace.operations.append(lease.token, operations)
    workspace.submissions.submit(lease.token, page.base)
    close_round(dataset, workspace, opened.round_id)
    return opened.round_id, image_id


def test_rounds_are_listed_and_their_images_split_by_id(dataset: Dataset, workspace: Workspace) -> None:
    ids = image_ids(dataset)
    first = close_manual_round(dataset, workspace, ids[:4])
    second = close_manual_round(dataset, workspace, ids[4:8])
    snapshot = dataset.snapshot().snapshot_id
    assert rounds_in(dataset, snapshot) == [first, second]
    held_out = sum(each % 3 == 0 for each in ids[:8])
    assert count_round_images(dataset, snapshot, [first, second], held_out_every=3) == (8 - held_out, held_out)
    trained = [each for each in ids[:8] if each % 3]
    rows = dataset.query(
        f"SELECT count(*) AS masks FROM annotations WHERE image_id IN ({', '.join(map(str, trained))})"
    )
    assert count_round_masks(dataset, snapshot, [first, second], held_out_every=3) == rows["masks"][0].as_py() > 0
    assert count_round_masks(dataset, snapshot, [], held_out_every=3) == 0
    labelled = held_out_images(dataset, snapshot, held_out_every=3)
    assert sorted(image.image_id for image in labelled) == [each for each in ids[:8] if each % 3 == 0]
    drawn = {rle.box_xyxy(square(0)), rle.box_xyxy(square(4))}
    assert labelled
    assert all({rle.box_xyxy(mask) for mask in image.masks_by_annotator[0]} == drawn for image in labelled)


def test_masks_made_by_people_count_one_and_only_those_of_the_round(dataset: Dataset, workspace: Workspace) -> None:
    ids = image_ids(dataset)[:3]
    opened = close_manual_round(dataset, workspace, ids)
    snapshot = dataset.snapshot().snapshot_id
    images = read_round_images(dataset, snapshot, [opened], ids, with_rejected=True)
    assert [image.image_id for image in images] == ids
    assert all(image.weights == (1.0, 1.0) and not any(image.rejected) for image in images)
    assert {rle.area(mask) for image in images for mask in image.masks} == {400}


def test_corrected_masks_count_by_their_correction_and_rejected_ones_warn(
    dataset: Dataset, workspace: Workspace
) -> None:
    opened, image_id = close_corrected_round(dataset, workspace)
    snapshot = dataset.snapshot().snapshot_id
    (image,) = read_round_images(dataset, snapshot, [opened], [image_id], with_rejected=True)
    by_area = {
        rle.area(mask): (weight, no)
        for mask, weight, no in zip(image.masks, image.weights, image.rejected, strict=True)
    }
    assert by_area[100] == (1.0, False)
    corrected = next(area for area in by_area if area not in (100, 32 * 32))
    weight, is_rejected = by_area[corrected]
    assert weight == pytest.approx(0.5 + UNCORRECTED_WEIGHT)
    assert not is_rejected
    (without,) = read_round_images(dataset, snapshot, [opened], [image_id], with_rejected=False)
    assert not any(without.rejected)


def test_windows_carry_the_weights_and_leave_held_out_images_alone(dataset: Dataset, workspace: Workspace) -> None:
    ids = image_ids(dataset)
    opened = close_manual_round(dataset, workspace, ids)
    snapshot = dataset.snapshot().snapshot_id
    window = WindowConfig(side_px=64, zoom=(1.0, 1.0))
    source = RoundSource(dataset, snapshot, [opened], TRAINING)
    assert sorted(image.image_id for image in source._images) == [each for each in ids if each % 3]
    cut = source.cut(np.random.default_rng(0), 0, window, 4)
    assert cut.masks_NHW.shape == (4, 64, 64)
    assert cut.weights_N is not None
    assert cut.rejected_N is not None
    assert cut.weights_N.tolist() == [1.0] * 4
    assert not cut.rejected_N.any()
    again = RoundSource(dataset, snapshot, [opened], TRAINING).cut(np.random.default_rng(0), 0, window, 4)
    assert np.array_equal(cut.image_HW3, again.image_HW3)
    assert all(image.image_id in HELD_OUT for image in RoundSource(dataset, snapshot, [opened], HELD_OUT)._images)


def test_masks_are_trained_on_in_an_order_that_their_pixels_alone_decide() -> None:
    masks = tuple(rle.encode(np.eye(4, dtype=np.bool_)[:, shift:]) for shift in (0, 1, 2))
    image = RoundImage(image_id=1, masks=masks, weights=(0.5, 1.0, 0.0), rejected=(False, False, True))
    turned = RoundImage(image_id=1, masks=masks[::-1], weights=(0.0, 1.0, 0.5), rejected=(True, False, False))
    assert sort_by_content(image) == sort_by_content(turned)
    assert sort_by_content(image).rejected == (False, False, True), "rejected ones stay last"
