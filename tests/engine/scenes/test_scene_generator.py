"""Scenes: reproducible, exact and nested masks of the sizes that photos have."""

import pytest
import torch

from engine.scenes.batch import NO_PARENT, SceneBatch
from engine.scenes.scene_generator import generate_scenes

SIDE = 128


def scenes(count: int, *, seed: int = 0, side: int = SIDE, clean: bool = False) -> SceneBatch:
    return generate_scenes(count, side, torch.Generator().manual_seed(seed), "cpu", clean=clean)


@pytest.fixture(scope="module")
def batch() -> SceneBatch:
    return scenes(24)


def test_images_and_maps_have_the_stated_shapes_and_types(batch: SceneBatch) -> None:
    longest = int(batch.leaves_B.max())
    assert batch.images_B3HW.shape == (24, 3, SIDE, SIDE)
    assert batch.images_B3HW.dtype == torch.uint8
    assert batch.ids_BHW.shape == (24, SIDE, SIDE)
    assert batch.ids_BHW.dtype == batch.part_BL.dtype == batch.whole_BL.dtype == torch.int32
    assert batch.part_BL.shape == batch.whole_BL.shape == (24, longest)


def test_the_same_seed_gives_the_same_scenes_and_another_seed_others(batch: SceneBatch) -> None:
    again, other = scenes(24), scenes(24, seed=1)
    for name in ("images_B3HW", "ids_BHW", "part_BL", "whole_BL", "leaves_B"):
        assert torch.equal(getattr(batch, name), getattr(again, name))
    assert not any(torch.equal(a, b) for a, b in zip(batch.ids_BHW, other.ids_BHW, strict=True))


def test_a_generator_gives_new_scenes_every_time_it_is_used() -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = (generate_scenes(2, SIDE, generator, "cpu") for _ in range(2))
    assert not torch.equal(first.images_B3HW, second.images_B3HW)


def test_the_draws_do_not_touch_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    scenes(2, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("level", ["leaf", "part", "whole"])
def test_ids_of_every_level_run_without_gaps_and_all_have_pixels(batch: SceneBatch, level: str) -> None:
    for b, ids_HW in enumerate(batch.level(level)):
        present = ids_HW.unique()
        assert torch.equal(present, torch.arange(len(present), dtype=torch.int32))
        if level == "leaf":
            assert len(present) == batch.leaves_B[b]


def test_every_part_lies_in_one_whole_and_padding_has_no_parent(batch: SceneBatch) -> None:
    for b, leaves in enumerate(batch.leaves_B.tolist()):
        part_L, whole_L = batch.part_BL[b], batch.whole_BL[b]
        pairs = torch.stack([part_L[:leaves], whole_L[:leaves]]).unique(dim=1)
        assert pairs.shape[1] == len(part_L[:leaves].unique())
        assert (part_L[leaves:] == NO_PARENT).all()
        assert (whole_L[leaves:] == NO_PARENT).all()


def test_all_three_levels_differ_somewhere(batch: SceneBatch) -> None:
    leaves = batch.leaves_B.sum()
    parts, wholes = (batch.level(name).flatten(1).amax(1).add(1).sum() for name in ("part", "whole"))
    assert leaves > 1.02 * parts
    assert parts > 1.2 * wholes


def test_colours_step_at_borders_of_leaves_and_not_inside() -> None:
    clean = scenes(48, seed=2, clean=True)
    image = clean.images_B3HW.float()
    # Two pixels apart, as the border itself is softened.
    step = (image[..., 2:] - image[..., :-2]).abs().mean(1)
    ids = clean.ids_BHW
    border = ids[..., 2:] != ids[..., :-2]
    assert step[border].median() > 6 * step[~border].median()
    assert step[border].mean() > 3 * step[~border].mean()


def test_masks_are_as_large_as_those_people_draw() -> None:
    many = scenes(96, seed=4)
    bins = []
    for name in ("leaf", "part", "whole"):
        for ids_HW in many.level(name):
            share = ids_HW.flatten().bincount() / SIDE**2
            share = share[share >= 0.001]
            bins.append(torch.bucketize(share, torch.tensor([0.01, 0.1])).bincount(minlength=3) / len(share))
    small, middle, large = torch.stack(bins).mean(0).tolist()
    # BSDS500: .44, .37, .19 of the masks of at least 0.1 % of the image.
    assert 0.34 < small < 0.58
    assert 0.22 < middle < 0.45
    assert 0.12 < large < 0.3


@pytest.mark.parametrize("side", [64, 100, 193])
def test_sides_of_any_size_work(side: int) -> None:
    assert scenes(3, side=side).images_B3HW.shape == (3, 3, side, side)


@pytest.mark.parametrize(("count", "side"), [(0, 128), (4, 32)])
def test_impossible_requests_say_what_is_possible(count: int, side: int) -> None:
    with pytest.raises(ValueError, match="expected count >= 1 and side >= 64"):
        generate_scenes(count, side, torch.Generator(), "cpu")
